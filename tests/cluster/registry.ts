// A registry on the node's bridge, over plain HTTP, for tests that push: pods, BuildKit and containerd reach it
// by the same name, `10.203.0.1:PORT`.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '../kit/free-port.ts';
import { until } from '../kit/until.ts';
import { registryHostsDir } from './components.ts';
import { nodeAddress } from './layout.ts';
import { tool } from './tool.ts';

export interface Registry {
  /** `address:port`, the first part of the names of its images. */
  host: string;
  /** `http://address:port`. */
  url: string;
  /** The tags of a repository; empty if it does not exist. */
  tags(repository: string): Promise<string[]>;
  /** Stops the registry and removes its content. */
  stop(): Promise<void>;
}

const ended = (child: ChildProcess): Promise<void> =>
  new Promise((resolve) =>
    child.exitCode === null && child.signalCode === null ? child.once('exit', () => resolve()) : resolve(),
  );

/**
 * Starts an empty registry, and tells the cluster's containerd that it speaks plain HTTP, so that pods may name
 * its images. The cluster must be up. Ends with this process at the latest. With `htpasswd` (lines of NAME:BCRYPT)
 * only these users get in, and `tags` knows none. `address`: another than the bridge's, for a machine without the cluster.
 */
export async function startRegistry({
  htpasswd,
  address = nodeAddress,
}: {
  htpasswd?: string;
  address?: string;
} = {}): Promise<Registry> {
  const program = await tool('registry');
  const folder = mkdtempSync(join(tmpdir(), 'cde-registry-'));
  const host = `${address}:${await freePort(address)}`;
  const url = `http://${host}`;
  writeFileSync(
    join(folder, 'config.yml'),
    `version: 0.1
log: {level: warn}
storage:
  filesystem: {rootdirectory: ${join(folder, 'data')}}
  delete: {enabled: true}
http: {addr: "${host}"}
${htpasswd ? `auth: {htpasswd: {realm: test, path: ${join(folder, 'htpasswd')}}}` : ''}
`,
  );
  if (htpasswd) writeFileSync(join(folder, 'htpasswd'), htpasswd);
  const hosts = join(registryHostsDir, host);
  mkdirSync(hosts, { recursive: true });
  writeFileSync(
    join(hosts, 'hosts.toml'),
    `server = "${url}"\n[host."${url}"]\n  capabilities = ["pull", "resolve", "push"]\n`,
  );

  const child = spawn(program, ['serve', join(folder, 'config.yml')], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, OTEL_TRACES_EXPORTER: 'none' },
  });
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    log = (log + chunk).slice(-4000);
  });
  const endWithUs = () => child.kill();
  process.once('exit', endWithUs);

  const stop = async () => {
    process.off('exit', endWithUs);
    child.kill();
    await ended(child);
    for (const made of [hosts, folder]) rmSync(made, { recursive: true, force: true });
  };
  const answers = () =>
    fetch(`${url}/v2/`).then(
      (reply) => reply.ok || reply.status === 401,
      () => false,
    );
  const started = await until(
    async () => child.exitCode !== null || (await answers()),
    Boolean,
    20_000,
  ).catch(() => false);
  if (!started || child.exitCode !== null) {
    await stop();
    throw new Error(`The registry did not start: ${log}`);
  }
  return {
    host,
    url,
    stop,
    async tags(repository) {
      const reply = await fetch(`${url}/v2/${repository}/tags/list`);
      return reply.ok ? (((await reply.json()) as { tags: string[] | null }).tags ?? []) : [];
    },
  };
}
