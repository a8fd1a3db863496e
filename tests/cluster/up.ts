// `npm run kube:up`: brings up the test cluster, or what is missing of it, and prints the path of its kubeconfig.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { adminKubeconfig, makeCertificates, partKubeconfig, pki } from './certificates.ts';
import * as components from './components.ts';
import { debianImages, images, importOnce, smallImages } from './images.ts';
import { alone } from './lock.ts';
import { Refusal, requireMachine, requirePackages, run, say, tried, until } from './machine.ts';
import { applyBasics } from './manifests.ts';
import { makeNetwork } from './network.ts';
import * as places from './places.ts';
import { type Command, known, logTail, running, start } from './processes.ts';
import { tool } from './tool.ts';
import { rememberTraces } from './traces.ts';

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

/** Waits for an answer of a health check; a process that has ended says so at once, with its last words. */
async function healthy(command: Command, seconds: number, check: () => boolean): Promise<void> {
  const why = (what: string) => `${command.name} ${what}. Its log ends with:\n${logTail(command.name)}`;
  await until(
    () => {
      if (!running(command.name)) throw new Error(why('ended'));
      return check();
    },
    seconds,
    () => why(`was not ready within ${seconds} s`),
  );
}

const answers = (url: string, ...args: string[]): boolean =>
  tried('curl', '-fsS', '--max-time', '2', ...args, url);

/** Starts each process that is not there and waits until the node is Ready. Returns the kubeconfig's path. */
export async function up(): Promise<string> {
  requireMachine();
  const began = Date.now();
  requirePackages(...packages, 'curl');
  // One after the other: each build uses all cores.
  const kube = await tool('kube');
  const coredns = await tool('coredns');
  const small = await smallImages();
  for (const folder of ['', 'logs', 'volumes', 'config/registries']) {
    mkdirSync(join(places.clusterDir, folder), { recursive: true });
  }
  mkdirSync(places.runDir, { recursive: true });
  rememberTraces();
  makeCertificates();
  makeNetwork();

  const startedNow: string[] = [];
  const begin = async (command: Command) => {
    if (await start(command)) startedNow.push(command.name);
  };
  const cluster = Date.now();
  const etcd = components.etcd();
  const containerd = components.containerd(images.pause);
  const apiServer = components.apiServer(kube);
  await Promise.all([begin(etcd), begin(containerd)]);
  await healthy(etcd, 30, () => answers(`http://127.0.0.1:${places.ports.etcd}/health`));
  await begin(apiServer);
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
    await begin(command);
  }
  await applyBasics(kube, partKubeconfig('admin'));
  const ready = () =>
    tried(
      kube,
      ...['kubectl', '--kubeconfig', partKubeconfig('admin'), 'wait', '--for=condition=Ready'],
      ...[`node/${places.nodeName}`, '--timeout=1s'],
    );
  await healthy(kubelet, 90, ready);
  await healthy(dns, 30, () => answers(`http://127.0.0.1:${places.ports.dnsReady}/ready`));
  const readyAfter = ((Date.now() - cluster) / 1000).toFixed(1);
  // Only now: whoever waits for this file finds a cluster that works.
  run('mv', [`${places.kubeconfigPath}.new`, places.kubeconfigPath]);
  await importOnce(await debianImages(), [images.debian, images.debianNewer, images.nonroot]);

  if (startedNow.length === 0) say('The cluster is up already');
  else say(`Started ${startedNow.join(', ')}; node Ready after ${readyAfter} s`);
  say(`${known().length} processes; ${((Date.now() - began) / 1000).toFixed(1)} s in all`);
  return places.kubeconfigPath;
}

const provisioner = (): Command => ({
  name: 'provisioner',
  program: process.execPath,
  args: [join(places.here, 'provisioner.ts'), partKubeconfig('admin')],
  identity: readFileSync(join(places.here, 'provisioner.ts'), 'utf8'),
});

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    console.log(await alone(up));
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    say(error.message);
    process.exitCode = 1;
  }
}
