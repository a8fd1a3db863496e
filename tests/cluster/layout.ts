// Paths, addresses and ports of the test cluster. There is one cluster per machine: a second one would use the same
// bridges and addresses.
import { createHash } from 'node:crypto';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The folder tests/cluster. */
export const clusterToolsDir = dirname(fileURLToPath(import.meta.url));

/** Everything built or run is below this folder; CDE_CACHE_DIR overrides it. */
export const cacheDir = process.env.CDE_CACHE_DIR ?? join(homedir(), '.cache', 'cde');

/** The running cluster: certificates, configuration, logs, etcd's data, containers, volumes. Removed by `down`. */
export const clusterDir = join(cacheDir, 'cluster');

/** Built programs and images. Survives `down`. */
export const buildDir = join(cacheDir, 'build');

/** For sockets: a path below the cache may exceed the 107 bytes of a UNIX socket path. */
export const runDir = '/run/cde-cluster';

export const kubeconfigPath = join(clusterDir, 'kubeconfig');
export const logDir = join(clusterDir, 'logs');
export const volumeDir = join(clusterDir, 'volumes');
export const containerdSocket = join(runDir, 'containerd.sock');

/** The name of the only node, and the address of the node and the API server on their own bridge. */
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

/** The URL of the API server for everybody, pods included. */
export const apiUrl = `https://${nodeAddress}:${ports.api}`;

/** The storage class of the test provisioner; the cluster's default. */
export const storageClass = 'cde-test';
export const provisionerName = 'cde.dev/test-hostpath';

/** A short hash of the inputs of a build. */
export const shortHash = (...parts: (string | Buffer)[]): string => {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part).update('\0');
  return hash.digest('hex').slice(0, 12);
};
