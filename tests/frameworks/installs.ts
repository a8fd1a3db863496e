// The frameworks that test:frameworks drives, at pinned versions, each installed once into the cache outside the
// repository. `node tests/frameworks/installs.ts` (npm run frameworks:install) installs them all beforehand: code-server
// compiles for some minutes.
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cacheDir, shortHash } from '../cluster/layout.ts';
import { logProgress, runAsync, SetupError } from '../cluster/machine.ts';

const frameworksDir = join(cacheDir, 'frameworks');
/** Debian's Node, with its headers: what code-server's native modules are compiled for. */
const systemNode = '/usr/bin/node';

interface Install {
  versions: Record<string, string>;
  /** Debian packages that it needs beforehand. */
  debian: string[];
  /** Files that must exist, each with what to do about it. */
  needs?: Record<string, string>;
  make(folder: string, versions: string[]): Promise<unknown>;
}

const npmInstall = (folder: string, packages: string[], env: NodeJS.ProcessEnv = {}) => {
  writeFileSync(
    join(folder, 'package.json'),
    JSON.stringify({ private: true, allowScripts: { 'code-server': true, argon2: true } }),
  );
  return runAsync('npm', ['install', '--no-audit', '--no-fund', '--loglevel=error', ...packages], {
    cwd: folder,
    env: { ...process.env, ...env },
  });
};

const catalogue = {
  node: {
    versions: {
      express: '5.3.0',
      next: '16.4.6',
      react: '19.3.1',
      'react-dom': '19.3.1',
      vite: '8.4.0',
      webpack: '5.113.0',
      'webpack-cli': '7.3.1',
      'webpack-dev-server': '6.1.0',
      ws: '8.23.0',
    },
    debian: [],
    make: (folder, versions) => npmInstall(folder, versions),
  },
  python: {
    versions: { Django: '5.2.19', channels: '4.3.2', daphne: '4.2.3', jupyterlab: '4.6.6' },
    debian: ['python3', 'python3-venv'],
    async make(folder, versions) {
      await runAsync('/usr/bin/env', ['python3', '-m', 'venv', '--copies', folder]);
      const requirements = versions.map((version) => version.replace('@', '=='));
      await runAsync(join(folder, 'bin', 'python3'), ['-m', 'pip', 'install', '-q', ...requirements]);
    },
  },
  'code-server': {
    versions: { 'code-server': '4.139.1' },
    debian: ['build-essential', 'libkrb5-dev', 'libsecret-1-dev', 'pkg-config', 'python3'],
    needs: {
      [systemNode]: 'apt-get install nodejs',
      '/usr/include/node/node.h': 'install the headers of that Node below /usr/include/node',
    },
    async make(folder, versions) {
      const version = (await runAsync(systemNode, ['--version'])).trim().slice(1);
      await npmInstall(folder, versions, {
        FORCE_NODE_VERSION: version.split('.')[0],
        npm_config_nodedir: '/usr',
        PATH: `/usr/bin:/bin:/usr/local/bin:${process.env.PATH}`,
      });
    },
  },
  rails: {
    versions: {},
    debian: ['ruby', 'ruby-actionpack', 'ruby-actioncable', 'ruby-railties', 'puma'],
    make: async () => {},
  },
} satisfies Record<string, Install>;

export type FrameworkName = keyof typeof catalogue;
const frameworkNames = Object.keys(catalogue) as FrameworkName[];

/** How long a hook that installs may take: code-server compiles for minutes, beside other suites for longer. */
export const installTimeoutMs = 1_500_000;

/** Installs the named one unless the cache has it, and returns its folder. */
export async function install(name: FrameworkName): Promise<string> {
  const { versions, debian, needs = {}, make } = catalogue[name] as Install;
  const packages = Object.entries(versions).map(([one, version]) => `${one}@${version}`);
  const folder = join(frameworksDir, `${name}-${shortHash(...packages)}`);
  await installDebian(debian);
  if (existsSync(join(folder, '.complete'))) return folder;
  for (const [path, advice] of Object.entries(needs))
    if (!existsSync(path)) throw new SetupError(`${name} needs ${path}, which is missing: ${advice}`);

  removeLeftovers();
  // A Python environment knows its own path, so it is made in place; the mark says that it is whole.
  const temporary = name === 'python' ? folder : join(frameworksDir, `.installing-${name}-${process.pid}`);
  rmSync(temporary, { recursive: true, force: true });
  mkdirSync(temporary, { recursive: true });
  logProgress(`Installing ${packages.join(', ') || name} (once; kept in ${folder})`);
  const began = Date.now();
  try {
    await make(temporary, packages);
    writeFileSync(join(temporary, '.complete'), '');
    if (temporary !== folder) {
      rmSync(folder, { recursive: true, force: true });
      renameSync(temporary, folder);
    }
  } catch (error) {
    rmSync(temporary, { recursive: true, force: true });
    throw error;
  }
  logProgress(`Installed ${name} in ${Math.round((Date.now() - began) / 1000)} s`);
  return folder;
}

async function installDebian(packages: string[]): Promise<void> {
  const missing: string[] = [];
  for (const name of packages) {
    const status = await runAsync('dpkg-query', ['-s', name]).catch(() => '');
    if (!status.includes('install ok installed')) missing.push(name);
  }
  if (missing.length === 0) return;
  if (process.getuid?.() !== 0) throw new SetupError(`Missing: apt-get install ${missing.join(' ')}`);
  logProgress(`Installing ${missing.join(' ')}`);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const lock = ['-o', 'DPkg::Lock::Timeout=300', '-qq'];
  await runAsync('apt-get', [...lock, 'update'], { env });
  await runAsync('apt-get', [...lock, 'install', '-y', '--no-install-recommends', ...missing], { env });
}

/** Removes what installs that were killed have left. */
function removeLeftovers(): void {
  if (!existsSync(frameworksDir)) return;
  for (const entry of readdirSync(frameworksDir)) {
    const pid = /^\.installing-.*-(\d+)$/.exec(entry)?.[1];
    if (pid && !existsSync(`/proc/${pid}`))
      rmSync(join(frameworksDir, entry), { recursive: true, force: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    for (const name of frameworkNames) await install(name);
  } catch (error) {
    logProgress(error instanceof SetupError ? error.message : String((error as Error).stack));
    process.exit(1);
  }
}
