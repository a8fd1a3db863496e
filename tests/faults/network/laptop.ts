import { type ChildProcess, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream, existsSync } from 'node:fs';
import { mkdir, open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect } from 'vitest';
import { freePort } from '../../kit/free-port.ts';
import { type Machine, makeMachine, type Ran } from '../../kit/machine.ts';
import { until } from '../../kit/until.ts';
import { type Host, makeAddress, makeHost, whyNoHosts } from './network.ts';

/** Changes the clock of a laptop's processes, and not the machine's. */
const fakeTime = ['x86_64', 'aarch64']
  .map((processor) => `/usr/lib/${processor}-linux-gnu/faketime/libfaketimeMT.so.1`)
  .find((path) => existsSync(path));
if (!fakeTime) console.warn('libfaketime is not installed: no clock jumps while a laptop is asleep.');

/** Why these faults cannot be injected on this machine; null if they can. */
export const lacking = whyNoHosts();
if (lacking) console.warn(`Network faults are not tested: ${lacking}.`);

const megabytes = 200;
let machine: Machine;
let login: Record<string, string>;
let sum: string;

/** A server for the tests of this file, at an address that every laptop reaches over its own link. */
export function useServer(): void {
  const place = lacking ? null : makeAddress();
  beforeAll(async () => {
    if (!place) return;
    machine = await makeMachine({
      // The agent is reached from other machines, as in a pod or a VM.
      CDE_LOCAL_NETWORK: 'shared',
      CDE_LISTEN: `${place.address}:${await freePort()}`,
      CDE_LOCAL_PROVIDER: 'on',
    });
    await mkdir(machine.env.HOME!, { recursive: true });
    await machine.start();
    const { servers } = JSON.parse(await readFile(join(machine.env.CDE_CONFIG_DIR!, 'config.json'), 'utf8'));
    const [url] = Object.keys(servers);
    login = { CDE_URL: url!, CDE_TOKEN: servers[url!].token };
    sum = await makeFile(join(machine.folder, 'sent'));
  });
  afterAll(async () => {
    await machine?.remove();
    place?.remove();
  });
}

async function makeFile(path: string): Promise<string> {
  const file = await open(path, 'w');
  const hash = createHash('sha256');
  for (let at = 0; at < megabytes; at++) {
    const chunk = randomBytes(1024 * 1024);
    hash.update(chunk);
    await file.write(chunk);
  }
  await file.close();
  return hash.digest('hex');
}

async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

interface Begun {
  child: ChildProcess;
  stdout(): string;
  ended: Promise<Ran>;
}

/** A laptop with its own link, configuration and background process. */
export interface Laptop {
  host: Host;
  folder: string;
  begin(program: string, ...words: string[]): Begun;
  ssh(command: string): Begun;
}

export async function withLaptop(play: (laptop: Laptop) => Promise<void>): Promise<void> {
  const host = await makeHost();
  const folder = join(machine.folder, host.prefix.at(-1)!);
  try {
    await mkdir(join(folder, '.ssh'), { recursive: true });
    await writeFile(clockOf(folder), '+0');
    const begin = (...words: string[]): Begun => {
      const [program, ...args] = [...host.prefix, ...words];
      const child = spawn(program!, args, {
        cwd: folder,
        env: {
          ...machine.env,
          ...login,
          HOME: folder,
          CDE_CONFIG_DIR: join(folder, 'config'),
          ...(fakeTime && {
            LD_PRELOAD: fakeTime,
            FAKETIME_TIMESTAMP_FILE: clockOf(folder),
            FAKETIME_CACHE_DURATION: '1',
            // As on a machine that sleeps: the monotonic clock stops.
            FAKETIME_DONT_FAKE_MONOTONIC: '1',
          }),
        },
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      let [stdout, stderr] = ['', ''];
      child.stdout!.on('data', (chunk) => {
        stdout += chunk;
      });
      child.stderr!.on('data', (chunk) => {
        stderr += chunk;
      });
      const ended = once(child, 'close').then(([code]) => ({ code: code ?? -1, stdout, stderr }));
      return { child, stdout: () => stdout, ended };
    };
    const config = join(folder, '.ssh/config');
    expect(await begin('cde', 'config-ssh', '--ssh-config', config).ended).toMatchObject({ code: 0 });
    await play({ host, folder, begin, ssh: (command) => begin('ssh', '-F', config, 'hello.cde', command) });
  } finally {
    await host.remove();
    await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** The file with the seconds that a laptop's clock is ahead. */
const clockOf = (folder: string) => join(folder, 'clock');

/** A command that prints numbers for this many seconds, and its output. */
function counting(seconds: number) {
  const count = seconds * 10;
  return {
    command: `for i in $(seq ${count}); do echo $i; sleep 0.1; done`,
    printed: Array.from({ length: count }, (_, at) => `${at + 1}\n`).join(''),
  };
}

const sizeOf = (path: string) =>
  stat(path).then(
    ({ size }) => size,
    () => 0,
  );

/** Injects the fault into a running command, whose output arrives complete and in order. */
export const aCommand = (seconds: number, fault: (laptop: Laptop) => Promise<void>) =>
  withLaptop(async (laptop) => {
    const { command, printed } = counting(seconds);
    const running = laptop.ssh(command);
    await until(async () => running.stdout().includes('\n10\n') || running.child.exitCode !== null, Boolean);
    await fault(laptop);
    const ran = await running.ended;
    expect(ran.stderr).toBe('');
    expect(ran).toMatchObject({ code: 0, stdout: printed });
  });

/** Injects the fault into an rsync of 200 MB from the workspace after a quarter of it. */
export const aTransfer = (fault: (laptop: Laptop) => Promise<void>) =>
  withLaptop(async (laptop) => {
    const { folder, begin } = laptop;
    const [source, target] = [join(machine.folder, 'sent'), join(folder, 'got')];
    const rsh = `ssh -F ${join(folder, '.ssh/config')}`;
    // Upload first, then download under the fault.
    const there = await begin(
      'rsync',
      '--inplace',
      '-e',
      rsh,
      source,
      `hello.cde:${folder.split('/').at(-1)}`,
    ).ended;
    expect(there).toMatchObject({ code: 0, stderr: '' });
    const back = begin('rsync', '--inplace', '-e', rsh, `hello.cde:${folder.split('/').at(-1)}`, target);
    await until(
      async () => (await sizeOf(target)) > (megabytes * 1024 ** 2) / 4 || back.child.exitCode !== null,
      Boolean,
    );
    await fault(laptop);
    expect(await back.ended).toMatchObject({ code: 0, stderr: '' });
    expect(await hashOf(target)).toBe(sum);
    await laptop.ssh(`rm ${folder.split('/').at(-1)}`).ended;
  });

/** Drops everything silently for this long. */
export const cut = (seconds: number) => async (laptop: Laptop) => {
  await laptop.host.set({ down: true });
  await delay(seconds * 1000);
  await laptop.host.set({ down: false });
};

/**
 * A closed lid: the laptop's processes are frozen for this long and nothing reaches it. Afterwards its clock has advanced by
 * a whole night.
 */
export const asleep = (seconds: number) => async (laptop: Laptop) => {
  const pids = laptop.host.pids();
  for (const pid of pids) process.kill(pid, 'SIGSTOP');
  await cut(seconds)(laptop);
  await writeFile(clockOf(laptop.folder), `+${8 * 3600}`);
  for (const pid of pids) process.kill(pid, 'SIGCONT');
};
