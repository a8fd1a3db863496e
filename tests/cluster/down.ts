// `npm run kube:down`: stops the test cluster and removes everything it created, except the build cache.
import { existsSync, readdirSync, readFileSync, rmdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { until } from '../kit/until.ts';
import { removeHostFolders } from './host-folders.ts';
import { clusterDir, runDir } from './layout.ts';
import { withClusterLock } from './lock.ts';
import { logProgress, requireLinuxRoot, run, SetupError, succeeds } from './machine.ts';
import { removeNetwork } from './network.ts';
import { recordedProcesses, stopProcess } from './processes.ts';

/** Pids of processes with the given argument: ours have the path of our socket or folder. */
const processesWith = (text: string): number[] =>
  readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry) && Number(entry) !== process.pid)
    .map(Number)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').includes(text);
      } catch {
        return false;
      }
    });

/** The processes in a control group and those below it. */
function groupProcesses(folder: string): number[] {
  const own = readFileSync(join(folder, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean).map(Number);
  const below = readdirSync(folder).filter((name) => statSync(join(folder, name)).isDirectory());
  return [...own, ...below.flatMap((name) => groupProcesses(join(folder, name)))];
}

function removeGroup(folder: string): void {
  for (const name of readdirSync(folder)) {
    if (statSync(join(folder, name)).isDirectory()) removeGroup(join(folder, name));
  }
  rmdirSync(folder);
}

/** The kubelet's control groups: one in version 2, one in each hierarchy in version 1. */
const podGroups = (): string[] =>
  ['', ...readdirSync('/sys/fs/cgroup')]
    .map((hierarchy) => join('/sys/fs/cgroup', hierarchy, 'kubepods'))
    .filter((folder) => existsSync(folder));

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has already ended.
  }
}

/** Kills every container: first the shims, which would report to a containerd that is gone, then their processes. */
async function killContainers(): Promise<void> {
  const socket = join(runDir, 'containerd.sock');
  const left = () => [...processesWith(socket), ...podGroups().flatMap(groupProcesses)];
  await until(
    () => {
      const alive = left();
      alive.forEach(kill);
      return alive.length === 0;
    },
    Boolean,
    { forMs: 20_000, why: () => `Containers do not end: processes ${left().join(', ')}` },
  );
  for (const group of podGroups()) removeGroup(group);
}

/** Unmounts everything below the folders, deepest first. */
function unmount(...folders: string[]): void {
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .map((path) => path.replaceAll('\\040', ' '))
    .filter((path) => folders.some((folder) => path === folder || path.startsWith(`${folder}/`)));
  for (const path of mounts.reverse()) run('umount', ['--lazy', path]);
}

/** Removes the network namespaces that containerd's CNI created for pods. */
function removePodNetworks(): void {
  const folder = '/run/netns';
  if (!existsSync(folder)) return;
  for (const name of readdirSync(folder))
    if (name.startsWith('cni-')) succeeds('ip', 'netns', 'delete', name);
}

/** Whether another containerd (such as Docker's) runs on this machine. */
const hasForeignContainers = (): boolean =>
  readdirSync('/proc').some((entry) => {
    try {
      return (
        /^containerd/.test(readFileSync(`/proc/${entry}/comm`, 'utf8')) && existsSync(`/proc/${entry}/exe`)
      );
    } catch {
      return false;
    }
  });

/** Stops the cluster and removes its files, mounts, bridges, rules and control groups. Does nothing if there is none. */
export async function down(): Promise<void> {
  requireLinuxRoot();
  if (!existsSync(clusterDir) && !existsSync(runDir)) {
    logProgress('There is no cluster');
    return;
  }
  const began = Date.now();
  rmSync(join(clusterDir, 'kubeconfig'), { force: true });
  // The kubelet first, because it restarts containers; etcd last, because the others wait for it.
  const order = ['kubelet', 'kube-proxy', 'kube-scheduler', 'kube-controller-manager'];
  await Promise.all(order.map(stopProcess));
  await Promise.all(
    recordedProcesses()
      .filter((name) => name !== 'etcd')
      .map(stopProcess),
  );
  await stopProcess('etcd');
  await killContainers();
  unmount(clusterDir, runDir);
  removePodNetworks();
  removeNetwork();
  removeHostFolders(hasForeignContainers());
  for (const folder of [clusterDir, runDir]) rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  logProgress(`The cluster is gone (${((Date.now() - began) / 1000).toFixed(1)} s)`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    await withClusterLock(down);
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    logProgress(error.message);
    process.exitCode = 1;
  }
}
