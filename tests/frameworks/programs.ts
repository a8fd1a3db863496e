import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from '../cluster/machine.ts';
import { freePort } from '../kit/free-port.ts';
import { until } from '../kit/until.ts';
import { install } from './installs.ts';

const apps = fileURLToPath(new URL('apps', import.meta.url));
const projectNode = fileURLToPath(new URL('../../node_modules/.bin/node', import.meta.url));
const startMs = 120_000;

export interface Program {
  port: number;
  /** Where its files are. */
  folder: string;
  output(): string;
  stop(): Promise<void>;
}

interface Command {
  command: string[];
  env?: Record<string, string>;
  /** What answers when it is ready; `/` unless given. */
  ready?: string;
}

/** Lays out a stock application in the folder and tells how it is started on the port. */
const makers = {
  async 'code-server'(folder: string, port: number): Promise<Command> {
    const at = await install('code-server');
    mkdirSync(join(folder, 'project'));
    writeFileSync(join(folder, 'project', 'opened-by-vscode.txt'), 'hello');
    const entry = join(at, 'node_modules/code-server/out/node/entry.js');
    const address = ['--bind-addr', `127.0.0.1:${port}`, '--auth', 'password'];
    const quiet = ['--disable-telemetry', '--disable-update-check', '--disable-workspace-trust'];
    return {
      command: [
        projectNode,
        entry,
        ...address,
        ...quiet,
        '--user-data-dir',
        join(folder, 'data'),
        join(folder, 'project'),
      ],
      env: { PASSWORD: 'secret' },
      ready: '/healthz',
    };
  },
  async jupyter(folder: string, port: number): Promise<Command> {
    const at = await install('python');
    return {
      command: [
        join(at, 'bin/jupyter'),
        'lab',
        '--no-browser',
        '--allow-root',
        `--ServerApp.port=${port}`,
        '--ServerApp.port_retries=0',
        '--IdentityProvider.token=secret',
      ],
      env: {
        PATH: `${join(at, 'bin')}:${process.env.PATH}`,
        JUPYTER_CONFIG_DIR: folder,
        JUPYTER_DATA_DIR: folder,
      },
      ready: '/api',
    };
  },
  async django(folder: string, port: number): Promise<Command> {
    const at = await install('python');
    const python = join(at, 'bin/python3');
    run(join(at, 'bin/django-admin'), ['startproject', 'site1', folder]);
    cpSync(join(apps, 'asgi.py'), join(folder, 'site1/asgi.py'));
    const daphne = "INSTALLED_APPS.insert(0, 'daphne')\nASGI_APPLICATION = 'site1.asgi.application'\n";
    writeFileSync(join(folder, 'site1/settings.py'), daphne, { flag: 'a' });
    run(python, ['manage.py', 'migrate', '-v', '0'], { cwd: folder });
    return {
      command: [python, 'manage.py', 'runserver', '--noreload', `127.0.0.1:${port}`],
      ready: '/admin/login/',
    };
  },
  async rails(folder: string, port: number): Promise<Command> {
    await install('rails');
    cpSync(join(apps, 'rails.ru'), join(folder, 'config.ru'));
    return {
      command: ['puma', '-b', `tcp://127.0.0.1:${port}`, '-e', 'development', join(folder, 'config.ru')],
    };
  },
  async vite(folder: string, port: number): Promise<Command> {
    const at = await linkModules(folder);
    cpSync(join(apps, 'vite.config.mjs'), join(folder, 'vite.config.mjs'));
    writeFileSync(
      join(folder, 'index.html'),
      '<h1>Vite page</h1><p></p><script type="module" src="/main.js"></script>',
    );
    writeFileSync(join(folder, 'main.js'), "document.querySelector('p').textContent = 'from a module';");
    return {
      command: [
        projectNode,
        join(at, 'vite/bin/vite.js'),
        '--port',
        `${port}`,
        '--strictPort',
        '--host',
        '127.0.0.1',
      ],
    };
  },
  async next(folder: string, port: number): Promise<Command> {
    const at = await linkModules(folder);
    mkdirSync(join(folder, 'app/away'), { recursive: true });
    writeFileSync(join(folder, 'package.json'), '{"private":true}');
    writeFileSync(
      join(folder, 'app/layout.js'),
      'export default function Layout({ children }) { return <html><body>{children}</body></html>; }',
    );
    writeFileSync(
      join(folder, 'app/page.js'),
      `import { redirect } from 'next/navigation';
      async function act() { 'use server'; redirect('/?posted'); }
      export default async function Page({ searchParams }) {
        const done = 'posted' in await searchParams;
        return <><h1>Next page</h1><p>{done ? 'posted' : ''}</p><form action={act}><button>Send</button></form></>;
      }`,
    );
    writeFileSync(
      join(folder, 'app/away/route.js'),
      "export const GET = (request) => Response.redirect(new URL('/?redirected', request.url));",
    );
    return {
      command: [projectNode, join(at, 'next/dist/bin/next'), 'dev', '--webpack', '-p', `${port}`],
      env: { NEXT_TELEMETRY_DISABLED: '1' },
    };
  },
  async 'webpack-dev-server'(folder: string, port: number): Promise<Command> {
    const at = await linkModules(folder);
    cpSync(join(apps, 'webpack.config.cjs'), join(folder, 'webpack.config.cjs'));
    writeFileSync(join(folder, 'package.json'), '{"private":true}');
    writeFileSync(join(folder, 'index.html'), '<h1>webpack page</h1><p></p><script src="/main.js"></script>');
    writeFileSync(join(folder, 'main.js'), "document.querySelector('p').textContent = 'from a bundle';");
    const entry = join(at, 'webpack-cli/bin/cli.js');
    return { command: [projectNode, entry, 'serve', '--config', 'webpack.config.cjs', '--port', `${port}`] };
  },
  async express(_folder: string, _port: number): Promise<Command> {
    const at = await install('node');
    return { command: [projectNode, join(apps, 'express.mjs')], env: { MODULES: at } };
  },
} satisfies Record<string, (folder: string, port: number) => Promise<Command>>;

export type ProgramName = keyof typeof makers;

async function linkModules(folder: string): Promise<string> {
  const modules = join(await install('node'), 'node_modules');
  symlinkSync(modules, join(folder, 'node_modules'));
  return modules;
}

/** Starts the program in a folder of its own below `root` and waits until it answers on its port. */
export async function startProgram(name: ProgramName, root: string): Promise<Program> {
  const folder = join(root, name.replaceAll('-', '_'));
  mkdirSync(folder, { recursive: true });
  const port = await freePort();
  const { command, env, ready = '/' } = await makers[name](folder, port);
  const child: ChildProcess = spawn(command[0]!, command.slice(1), {
    cwd: folder,
    detached: true,
    env: { PATH: process.env.PATH, LANG: 'C.UTF-8', HOME: folder, PORT: String(port), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout!, child.stderr!])
    stream.on('data', (chunk: Buffer) => {
      output = (output + chunk).slice(-20_000);
    });
  const ended = once(child, 'exit');
  const program = {
    port,
    folder,
    output: () => output,
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      // Its own group: development servers have children.
      process.kill(-child.pid!, 'SIGKILL');
      await ended;
    },
  };
  await until(
    async () => {
      if (child.exitCode !== null) throw new Error(`${name} ended with ${child.exitCode}:\n${output}`);
      return answers(port, ready);
    },
    (answered) => answered,
    startMs,
  ).catch(async (error) => {
    await program.stop();
    throw new Error(`${name} did not start: ${error.message}\n${output}`);
  });
  return program;
}

const answers = (port: number, path: string) =>
  new Promise<boolean>((resolve) => {
    get({ host: 'localhost', port, path }, (reply) => {
      reply.resume();
      resolve(true);
    }).on('error', () => resolve(false));
  });
