import { spawn } from 'node:child_process';
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { debianImages, smallImages } from '../cluster/images.ts';
import { requireLinuxRoot, requirePackages, runAsync } from '../cluster/machine.ts';
import { until } from '../kit/until.ts';

/** Podman gives containers more than this, which takes a right that root in a container does not have. */
const maxFiles = 10_000;
const maxProcesses = 16_000;

/** Podman's service, with folders and a socket of its own, and the images of the tests. */
export async function startPodman() {
  requireLinuxRoot();
  requirePackages('docker.io', 'podman', 'catatonit', 'runc', 'netavark', 'aardvark-dns', 'iptables');
  const folder = mkdtempSync(join(tmpdir(), 'cde-podman-'));
  const configuration = join(folder, 'containers.conf');
  writeFileSync(
    configuration,
    `[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
default_ulimits = ["nofile=${maxFiles}:${maxFiles}", "nproc=${maxProcesses}:${maxProcesses}"]
`,
  );
  const env = { ...process.env, CONTAINERS_CONF: configuration };
  const folders = [
    '--root',
    join(folder, 'root'),
    '--runroot',
    join(folder, 'run'),
    '--tmpdir',
    join(folder, 'tmp'),
  ];
  const url = `unix://${join(folder, 'podman.sock')}`;
  const output = openSync(join(folder, 'log'), 'a');
  const service = spawn('podman', [...folders, 'system', 'service', '--time', '0', url], {
    env,
    stdio: ['ignore', output, output],
  });
  const docker = (...args: string[]) => runAsync('docker', ['--host', url, ...args]);
  const exited = new Promise<never>((_, reject) =>
    service.once('exit', (code) =>
      reject(new Error(`podman ended with code ${code}:\n${readFileSync(join(folder, 'log'), 'utf8')}`)),
    ),
  );
  exited.catch(() => {});
  const answers = until(
    () =>
      docker('version').then(
        () => true,
        () => false,
      ),
    'Podman',
  );
  await Promise.race([answers, exited]);
  for (const archive of [await debianImages(), await smallImages()]) await docker('load', '--input', archive);
  return {
    url,
    docker,
    async close() {
      const podman = (...args: string[]) => runAsync('podman', [...folders, ...args], { env });
      await podman('rm', '--all', '--force', '--time', '0').catch(() => '');
      await podman('network', 'prune', '--force').catch(() => '');
      service.kill();
      await exited.catch(() => {});
      // Unmounts what the storage has mounted, also a folder on itself.
      await podman('system', 'reset', '--force').catch(() => '');
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
