// `npm run kube:up`: brings up the missing parts of the test cluster and prints the path of its kubeconfig.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { until } from '../kit/until.ts';
import { adminKubeconfig, componentKubeconfig, makeCertificates, pki } from './certificates.ts';
import * as components from './components.ts';
import { recordHostFolders } from './host-folders.ts';
import { debianImages, images, importOnce, smallImages } from './images.ts';
import * as places from './layout.ts';
import { withClusterLock } from './lock.ts';
import { logProgress, requireLinuxRoot, requirePackages, run, SetupError, succeeds } from './machine.ts';
import { applyBaseManifests } from './manifests.ts';
import { makeNetwork } from './network.ts';
import { type Command, logTail, recordedProcesses, runningPid, startProcess } from './processes.ts';
import { tool } from './tool.ts';

const packages = [
  'containerd',
  'runc',
  'containernetworking-plugins',
  'etcd-server',
  'iptables',
  'iproute2',
  'conntrack',
  'socat',
  'openssl',
  'kmod',
];

/** Waits for a health check to pass; fails at once, with the end of the log, if the process has ended. */
async function healthy(command: Command, seconds: number, check: () => boolean): Promise<void> {
  const why = (what: string) => `${command.name} ${what}. Its log ends with:\n${logTail(command.name)}`;
  await until(
    () => {
      if (!runningPid(command.name)) throw new Error(why('ended'));
      return check();
    },
    Boolean,
    { forMs: seconds * 1000, why: () => why(`was not ready within ${seconds} s`) },
  );
}

const answers = (url: string, ...args: string[]): boolean =>
  succeeds('curl', '-fsS', '--max-time', '2', ...args, url);

/** Starts the processes that do not run and waits until the node is Ready. Returns the kubeconfig's path. */
export async function up(): Promise<string> {
  requireLinuxRoot();
  const began = Date.now();
  requirePackages(...packages, 'curl');
  // One after another: each build uses all cores.
  const kube = await tool('kube');
  const coredns = await tool('coredns');
  const small = await smallImages();
  for (const folder of ['', 'logs', 'volumes', 'config/registries']) {
    mkdirSync(join(places.clusterDir, folder), { recursive: true });
  }
  mkdirSync(places.runDir, { recursive: true });
  recordHostFolders();
  makeCertificates();
  makeNetwork();

  const startedNow: string[] = [];
  const ensureStarted = async (command: Command) => {
    if (await startProcess(command)) startedNow.push(command.name);
  };
  const cluster = Date.now();
  const etcd = components.etcd();
  const containerd = components.containerd(images.pause);
  const apiServer = components.apiServer(kube);
  await Promise.all([ensureStarted(etcd), ensureStarted(containerd)]);
  await healthy(etcd, 30, () => answers(`http://127.0.0.1:${places.ports.etcd}/health`));
  await ensureStarted(apiServer);
  await healthy(containerd, 30, () => existsSync(places.containerdSocket));
  await importOnce(small, [images.pause, images.scratch, images.musl]);
  const api = ['--cacert', pki('ca.crt'), '--cert', pki('admin.crt'), '--key', pki('admin.key')];
  await healthy(apiServer, 120, () => answers(`${places.apiUrl}/readyz`, ...api));
  writeFileSync(`${places.kubeconfigPath}.new`, adminKubeconfig(), { mode: 0o600 });

  const kubelet = components.kubelet(kube);
  const dns = components.dns(coredns);
  for (const command of [
    components.controllerManager(kube),
    components.scheduler(kube),
    kubelet,
    components.kubeProxy(kube),
    dns,
    provisioner(),
  ]) {
    await ensureStarted(command);
  }
  await applyBaseManifests(kube, componentKubeconfig('admin'));
  const ready = () =>
    succeeds(
      kube,
      ...['kubectl', '--kubeconfig', componentKubeconfig('admin'), 'wait', '--for=condition=Ready'],
      ...[`node/${places.nodeName}`, '--timeout=1s'],
    );
  await healthy(kubelet, 90, ready);
  await healthy(dns, 30, () => answers(`http://127.0.0.1:${places.ports.dnsReady}/ready`));
  const readyAfter = ((Date.now() - cluster) / 1000).toFixed(1);
  // Last, so that a process that waits for this file finds a working cluster.
  run('mv', [`${places.kubeconfigPath}.new`, places.kubeconfigPath]);
  await importOnce(await debianImages(), [images.debian, images.debianNewer, images.nonroot]);

  if (startedNow.length === 0) logProgress('The cluster is already up');
  else logProgress(`Started ${startedNow.join(', ')}; node Ready after ${readyAfter} s`);
  logProgress(
    `${recordedProcesses().length} processes; ${((Date.now() - began) / 1000).toFixed(1)} s in all`,
  );
  return places.kubeconfigPath;
}

const provisioner = (): Command => ({
  name: 'provisioner',
  program: process.execPath,
  args: [join(places.clusterToolsDir, 'provisioner.ts'), componentKubeconfig('admin')],
  identity: readFileSync(join(places.clusterToolsDir, 'provisioner.ts'), 'utf8'),
});

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    console.log(await withClusterLock(up));
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    logProgress(error.message);
    process.exitCode = 1;
  }
}
