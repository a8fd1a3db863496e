import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { requireLinuxRoot, run, SetupError, succeeds } from '../cluster/machine.ts';
import { until } from '../kit/until.ts';
import { incusImageFiles } from './incus-image.ts';

const runAsync = promisify(execFile);
const daemonProgram = '/usr/libexec/incus/incusd';
const folderPrefix = 'cde-incus-';
/** How often a server is started that fails to. */
const attempts = 3;

/** An Incus server with a folder, a storage pool and a bridge of its own. */
export interface TestIncus {
  folder: string;
  /** Runs `incus` against it. */
  incus(...args: string[]): Promise<string>;
  /** As a crash of Incus: instances go on running. */
  kill(): Promise<void>;
  start(): Promise<void>;
  close(): Promise<void>;
}

const incusIn =
  (folder: string) =>
  async (...args: string[]) => {
    const running = runAsync('incus', args, {
      maxBuffer: 64 * 2 ** 20,
      env: { ...process.env, INCUS_DIR: folder, INCUS_CONF: join(folder, 'client') },
    });
    // Commands that create something read its configuration from there.
    running.child.stdin?.end();
    return (await running).stdout;
  };

/** Installs Incus, dnsmasq, which it wants for every bridge, and the tools of its storage. Debian 12 has Incus in its backports only. */
function requireIncus(): void {
  requireLinuxRoot();
  const programs = [daemonProgram, '/usr/sbin/dnsmasq', '/sbin/mkfs.btrfs'];
  if (programs.every((file) => existsSync(file))) return;
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const isBookworm = /^VERSION_CODENAME=bookworm$/m.test(readFileSync('/etc/os-release', 'utf8'));
  if (isBookworm && !succeeds('sh', '-c', "apt-cache policy | grep -q 'bookworm-backports'")) {
    const source = '/etc/apt/sources.list.d/bookworm-backports.sources';
    if (!existsSync(source))
      writeFileSync(
        source,
        'Types: deb\nURIs: http://deb.debian.org/debian\nSuites: bookworm-backports\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n',
      );
    run('apt-get', ['update', '-qq'], { env });
  }
  const from = isBookworm ? ['-t', 'bookworm-backports'] : [];
  run(
    'apt-get',
    ['install', '-y', '-qq', '--no-install-recommends', ...from, 'incus-base', 'dnsmasq-base', 'btrfs-progs'],
    {
      env,
    },
  );
}

/** On btrfs an instance is a clone of its image. In a plain folder it is unpacked each time, which takes five times as long. */
async function createPool(incus: TestIncus['incus']) {
  const pool = { name: 'default', driver: 'btrfs' };
  const isPossible = /\tbtrfs$/m.test(readText('/proc/filesystems')) && existsSync('/dev/loop-control');
  if (!isPossible) return { ...pool, driver: 'dir' };
  const body = JSON.stringify({ ...pool, config: { size: '10GiB' } });
  return incus('query', '--wait', '-X', 'POST', '-d', body, '/1.0/storage-pools').then(
    () => pool,
    () => ({ ...pool, driver: 'dir' }),
  );
}

const bridgeOf = (folder: string) => `cdei${folder.slice(-6)}`;
const pidFile = (folder: string) => join(folder, 'test.pid');

/** Ends everything that belongs to the folder of a server whose test is over or was killed, and removes the folder. */
async function removeEverything(folder: string): Promise<void> {
  const processes = () =>
    readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
      .map((name) => ({ pid: Number(name), command: readText(`/proc/${name}/cmdline`) }))
      .filter(
        ({ pid, command }) => command.includes(folder) || readText(`/proc/${pid}/environ`).includes(folder),
      );
  const end = (pid: number) => {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It has ended.
    }
  };
  await until(() => {
    const found = processes();
    // A container outlives its monitor, unless its first process ends.
    for (const { pid } of found) {
      const children = readText(`/proc/${pid}/task/${pid}/children`).split(' ').filter(Boolean);
      if (/lxc monitor/.test(readText(`/proc/${pid}/cmdline`))) children.map(Number).forEach(end);
    }
    for (const { pid } of found) end(pid);
    return found.length === 0;
  }, 'the end of all processes of Incus');
  const mounts = readText('/proc/self/mountinfo')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((target) => target.startsWith(folder));
  for (const target of mounts.reverse()) spawnSync('umount', ['--lazy', target]);
  spawnSync('ip', ['link', 'delete', bridgeOf(folder)]);
  rmSync(folder, { recursive: true, force: true });
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

/** Removes what killed runs left. */
async function removeLeftovers(): Promise<void> {
  for (const name of readdirSync(tmpdir())) {
    const folder = join(tmpdir(), name);
    if (!name.startsWith(folderPrefix) || !existsSync(pidFile(folder))) continue;
    if (!existsSync(`/proc/${readText(pidFile(folder)).trim()}`)) await removeEverything(folder);
  }
}

/** Starts a server with the images of incus-image.ts. */
export async function startIncus(): Promise<TestIncus> {
  requireIncus();
  const images = await incusImageFiles();
  await removeLeftovers();
  const folder = await mkdtemp(join(tmpdir(), folderPrefix));
  writeFileSync(pidFile(folder), String(process.pid));
  // The mapped users of containers have to reach what is inside.
  chmodSync(folder, 0o711);
  const incus = incusIn(folder);
  const log = join(folder, 'log');
  let daemon: ChildProcess | undefined;

  async function start(): Promise<void> {
    const output = openSync(log, 'a');
    daemon = spawn(daemonProgram, ['--group', 'root'], {
      env: { ...process.env, INCUS_DIR: folder },
      stdio: ['ignore', output, output],
    });
    const ended = new Promise<never>((_, reject) =>
      daemon!.once('exit', (code) =>
        reject(new Error(`incusd ended with code ${code}:\n${readText(log).slice(-4000)}`)),
      ),
    );
    ended.catch(() => {});
    const answers = until(
      () =>
        incus('admin', 'waitready', '--timeout', '10').then(
          () => true,
          () => false,
        ),
      'Incus',
    );
    await Promise.race([answers, ended]);
  }

  async function end(signal: NodeJS.Signals): Promise<void> {
    const running = daemon;
    if (!running || running.exitCode !== null || running.signalCode !== null) return;
    const exited = new Promise((resolve) => running.once('exit', resolve));
    running.kill(signal);
    await exited;
  }

  async function close(): Promise<void> {
    const found = await incus('list', '--all-projects', '--format', 'json').catch(() => '[]');
    for (const { name, project } of JSON.parse(found) as { name: string; project: string }[])
      await incus('delete', '--force', '--project', project, name).catch(() => '');
    await incus('profile', 'device', 'remove', 'default', 'eth0').catch(() => '');
    await incus('network', 'delete', bridgeOf(folder)).catch(() => '');
    await end('SIGTERM');
    await removeEverything(folder);
  }

  try {
    await start();
    const preseed = {
      storage_pools: [await createPool(incus)],
      networks: [
        {
          name: bridgeOf(folder),
          type: 'bridge',
          config: { 'ipv4.address': 'none', 'ipv6.address': 'none' },
        },
      ],
      profiles: [
        {
          name: 'default',
          devices: {
            root: { type: 'disk', path: '/', pool: 'default' },
            eth0: { type: 'nic', name: 'eth0', network: bridgeOf(folder) },
          },
        },
      ],
    };
    await incus('query', '--wait', '-X', 'PUT', '-d', JSON.stringify({ config: {} }), '/1.0');
    run('incus', ['admin', 'init', '--preseed'], {
      input: JSON.stringify(preseed),
      env: { ...process.env, INCUS_DIR: folder, INCUS_CONF: join(folder, 'client') },
    });
    for (const [alias, file] of Object.entries(images))
      await incus('image', 'import', file, '--alias', alias);
    return { folder, incus, start, kill: () => end('SIGKILL'), close };
  } catch (error) {
    await close();
    throw error;
  }
}

/**
 * Of this run, unless CDE_TEST_INCUS names the folder of another with the same images. If this machine cannot run one,
 * CDE_TEST_INCUS_MISSING says why, and the tests of it do.
 */
export default async function setup() {
  if (process.env.CDE_TEST_INCUS) return;
  for (let attempt = 1; ; attempt++)
    try {
      const server = await startIncus();
      process.env.CDE_TEST_INCUS = server.folder;
      return () => server.close();
    } catch (error) {
      const { message } = error as Error;
      const [line] = message.split('\n');
      process.env.CDE_TEST_INCUS_MISSING =
        error instanceof SetupError ? line : `Incus did not start: ${line}`;
      // Its database gives up after 10 s on a busy machine.
      if (error instanceof SetupError || attempt === attempts) return;
      console.warn(`Incus did not start, attempt ${attempt} of ${attempts}: ${message}`);
    }
}

/** Null if there is none; then CDE_TEST_INCUS_MISSING says why. */
export const testIncus = () => {
  const folder = process.env.CDE_TEST_INCUS;
  return folder ? { folder, incus: incusIn(folder) } : null;
};
