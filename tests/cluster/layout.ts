// Where the test cluster keeps its things, and the addresses it uses. There is one cluster a machine: its
// bridges and addresses are the machine's, so that a second one beside it would get in its way.
import { createHash } from 'node:crypto';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The folder of this file, tests/cluster. */
export const clusterToolsDir = dirname(fileURLToPath(import.meta.url));

/** Everything we build or run is below this folder; CDE_CACHE_DIR moves it. */
export const cacheDir = process.env.CDE_CACHE_DIR ?? join(homedir(), '.cache', 'cde');

/** The running cluster: certificates, configuration, logs, etcd's data, containers, volumes. Removed by `down`. */
export const clusterDir = join(cacheDir, 'cluster');

/** Built programs and images. Survives `down`. */
export const buildDir = join(cacheDir, 'build');

/** Sockets: a path below the cache may be longer than the 107 bytes that a UNIX socket's may have. */
export const runDir = '/run/cde-cluster';

export const kubeconfigPath = join(clusterDir, 'kubeconfig');
export const logDir = join(clusterDir, 'logs');
export const volumeDir = join(clusterDir, 'volumes');
export const containerdSocket = join(runDir, 'containerd.sock');

/** The one node's name, and the address that it and the API server have on a bridge of their own. */
export const nodeName = 'cde-test';
export const nodeAddress = '10.203.0.1';
export const nodeBridge = 'cdenode0';
export const podBridge = 'cdepod0';
export const podRange = '10.201.0.0/16';
export const serviceRange = '10.202.0.0/16';
export const apiServiceAddress = '10.202.0.1';
export const dnsServiceAddress = '10.202.0.10';

export const ports = {
  api: 6443,
  etcd: 12379,
  etcdPeer: 12380,
  kubelet: 10250,
  dnsReady: 18181,
  registry: 5000,
} as const;

/** The URL by which everybody, pods included, reaches the API server. */
export const apiUrl = `https://${nodeAddress}:${ports.api}`;

/** The storage class of the test provisioner; the cluster's default. */
export const storageClass = 'cde-test';
export const provisionerName = 'cde.dev/test-hostpath';

/** A short hash of what a built thing was made from. */
export const shortHash = (...parts: (string | Buffer)[]): string => {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part).update('\0');
  return hash.digest('hex').slice(0, 12);
};
