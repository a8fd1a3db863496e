import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { openSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { debianImages, smallImages } from '../cluster/images.ts';
import { requireLinuxRoot, requirePackages } from '../cluster/machine.ts';
import { until } from '../kit/until.ts';

const run = promisify(execFile);

/** A Docker engine with a folder and a socket of its own. */
export interface TestEngine {
  url: string;
  /** Runs `docker` against it. */
  docker(...args: string[]): Promise<string>;
  /** As after a crash of the machine: containers die with it. */
  kill(): Promise<void>;
  start(): Promise<void>;
  close(): Promise<void>;
}

const dockerAt =
  (url: string) =>
  async (...args: string[]) =>
    (await run('docker', ['--host', url, ...args], { maxBuffer: 64 * 2 ** 20 })).stdout;

/** Starts an engine. Its images are those of tests/cluster/images.ts. */
export async function startDockerEngine(): Promise<TestEngine> {
  requireLinuxRoot();
  requirePackages('docker.io', 'iptables');
  const folder = await mkdtemp(join(tmpdir(), 'cde-docker-'));
  const url = `unix://${join(folder, 'docker.sock')}`;
  const docker = dockerAt(url);
  const log = join(folder, 'log');
  let daemon: ChildProcess | undefined;

  async function start(): Promise<void> {
    const output = openSync(log, 'a');
    daemon = spawn(
      'dockerd',
      [
        ...['--data-root', join(folder, 'data'), '--exec-root', join(folder, 'exec')],
        ...['--pidfile', join(folder, 'pid'), '--host', url, '--bridge', 'none'],
      ],
      { stdio: ['ignore', output, output] },
    );
    const ended = new Promise<never>((_, reject) =>
      daemon!.once('exit', (code) =>
        reject(new Error(`dockerd ended with code ${code}:\n${readFileSync(log, 'utf8').slice(-4000)}`)),
      ),
    );
    const answers = until(
      () =>
        docker('version').then(
          () => true,
          () => false,
        ),
      'the Docker engine',
    );
    await Promise.race([answers, ended]);
    ended.catch(() => {});
    // dockerd drops what other networks of this machine forward.
    await run('iptables', ['--policy', 'FORWARD', 'ACCEPT']);
  }

  async function end(signal: NodeJS.Signals): Promise<void> {
    const running = daemon;
    if (!running || running.exitCode !== null || running.signalCode !== null) return;
    const exited = new Promise((resolve) => running.once('exit', resolve));
    running.kill(signal);
    await exited;
  }

  await start();
  for (const archive of [await debianImages(), await smallImages()]) await docker('load', '--input', archive);
  return {
    url,
    docker,
    start,
    kill: () => end('SIGKILL'),
    async close() {
      const containers = (await docker('ps', '--all', '--quiet').catch(() => '')).split('\n').filter(Boolean);
      if (containers.length > 0) await docker('rm', '--force', ...containers);
      await docker('network', 'prune', '--force').catch(() => '');
      await end('SIGTERM');
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** Of this run, unless CDE_TEST_DOCKER names another with the same images. */
export default async function setup() {
  if (process.env.CDE_TEST_DOCKER) return;
  const engine = await startDockerEngine();
  process.env.CDE_TEST_DOCKER = engine.url;
  return () => engine.close();
}

export const testEngine = () => {
  const url = process.env.CDE_TEST_DOCKER!;
  return { url, docker: dockerAt(url) };
};
