// Folders with fixed names that the kubelet and the CNI library create outside the cluster's folder. `down` removes
// those that did not exist before.
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { clusterDir } from './layout.ts';

const fixed = [
  '/var/lib/kubelet',
  '/var/lib/cni',
  '/var/log/containers',
  '/var/log/pods',
  '/run/containerd',
  '/etc/cni',
];
const file = join(clusterDir, 'traces.json');

/** Records which of the folders do not exist yet. */
export function recordHostFolders(): void {
  if (!existsSync(file)) writeFileSync(file, JSON.stringify(fixed.filter((folder) => !existsSync(folder))));
}

/** Removes the folders that the cluster created, except /run/containerd while another containerd uses it. */
export function removeHostFolders(containersOfOthers: boolean): void {
  if (!existsSync(file)) return;
  for (const folder of JSON.parse(readFileSync(file, 'utf8')) as string[]) {
    if (containersOfOthers && folder === '/run/containerd') continue;
    rmSync(folder, { recursive: true, force: true });
  }
}
