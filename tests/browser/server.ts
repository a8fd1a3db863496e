import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { compileCache } from '../kit/compile-cache.ts';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

export interface RealServer {
  url: string;
  /** Signs the first owner in. */
  link: string;
  /** False once its process has ended. */
  runs(): boolean;
  /** kill -9: the embedded PostgreSQL and the agents stay. */
  kill(): Promise<void>;
  /** Starts it again at the same address. */
  restart(): Promise<void>;
  /** Stops it and removes its data. */
  close(): Promise<void>;
}

/** Starts `server/main.ts` as a process with its own data, and waits until it is ready. */
export async function startServer(settings: Record<string, string> = {}): Promise<RealServer> {
  const folder = mkdtempSync(join(tmpdir(), 'cde-browser-'));
  // Workspaces run as their own users, who must be able to reach their homes.
  chmodSync(folder, 0o711);
  let child: ChildProcess;
  let output = '';
  let ending = false;

  async function start(listen: string): Promise<void> {
    output = '';
    ending = false;
    child = spawn(process.execPath, [join(root, 'server', 'main.ts')], {
      cwd: root,
      env: {
        PATH: process.env.PATH,
        HOME: process.env.HOME,
        LANG: 'C.UTF-8',
        ...compileCache,
        CDE_DATA_DIR: join(folder, 'data'),
        CDE_DOCKER: 'off',
        CDE_LISTEN: listen,
        CDE_LOCAL_PROVIDER: 'on',
        ...settings,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    await new Promise<void>((resolve, reject) => {
      const onData = (chunk: Buffer) => {
        output += chunk;
        if (output.includes('"cde server is ready"')) resolve();
      };
      child.stdout!.on('data', onData);
      child.stderr!.on('data', onData);
      child.once('exit', (code, signal) => {
        const words = `The server ended (${code ?? signal}):\n${output.slice(-4000)}`;
        reject(new Error(words));
        if (!ending) process.stderr.write(`${words}\n`);
      });
    });
  }

  await start('127.0.0.1:0');
  // The log does not contain it, because many people read logs.
  const first = JSON.parse(readFileSync(join(folder, 'data', 'first-start.json'), 'utf8'));
  const url: string = first.url;
  const link = `${url}/sign-in#code=${first.oneTimeCode}`;
  const end = async (signal: NodeJS.Signals) => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    ending = true;
    child.kill(signal);
    await ended;
  };
  return {
    url,
    link,
    runs: () => child.exitCode === null && child.signalCode === null,
    kill: () => end('SIGKILL'),
    restart: () => start(new URL(url).host),
    async close() {
      await end('SIGTERM');
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** The starter template's folder, as the API takes it. */
export function starterTemplate(): Record<string, string> {
  return { 'template.yaml': readFileSync(join(root, 'templates', 'local', 'template.yaml'), 'utf8') };
}
