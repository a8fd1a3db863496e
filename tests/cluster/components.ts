// The command line and the configuration of each process of the cluster. Unusual settings make it run
// on a machine without CAP_SYS_RESOURCE and with version 1 control groups. They work on an ordinary Debian, too.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { componentKubeconfig, pki } from './certificates.ts';
import {
  clusterDir,
  containerdSocket,
  dnsServiceAddress,
  nodeAddress,
  nodeName,
  podRange,
  ports,
  runDir,
  serviceRange,
} from './layout.ts';
import { cniConfigDir } from './network.ts';
import type { Command } from './processes.ts';

const config = (file: string) => join(clusterDir, 'config', file);

/**
 * Writes a configuration file and returns its text, so that a change of it restarts its process. An unchanged
 * file is not written, because kube-proxy exits when its file is touched.
 */
function writeConfig(file: string, text: string): string {
  mkdirSync(join(clusterDir, 'config'), { recursive: true });
  if (!existsSync(config(file)) || readFileSync(config(file), 'utf8') !== text)
    writeFileSync(config(file), text);
  return text;
}

/** The folder of registry hosts, read by containerd at each pull. */
export const registryHostsDir = config('registries');

export const etcd = (): Command => ({
  name: 'etcd',
  program: 'etcd',
  args: [
    ...['--name', nodeName, '--data-dir', join(clusterDir, 'etcd')],
    ...['--listen-client-urls', `http://127.0.0.1:${ports.etcd}`],
    ...['--advertise-client-urls', `http://127.0.0.1:${ports.etcd}`],
    ...['--listen-peer-urls', `http://127.0.0.1:${ports.etcdPeer}`],
    ...['--initial-advertise-peer-urls', `http://127.0.0.1:${ports.etcdPeer}`],
    ...['--initial-cluster', `${nodeName}=http://127.0.0.1:${ports.etcdPeer}`],
    ...['--auto-compaction-retention', '10m', '--quota-backend-bytes', String(4 * 1024 ** 3)],
  ],
});

export const apiServer = (kube: string): Command => ({
  name: 'kube-apiserver',
  program: kube,
  args: [
    'kube-apiserver',
    `--etcd-servers=http://127.0.0.1:${ports.etcd}`,
    `--bind-address=${nodeAddress}`,
    `--advertise-address=${nodeAddress}`,
    `--secure-port=${ports.api}`,
    `--service-cluster-ip-range=${serviceRange}`,
    '--authorization-mode=Node,RBAC',
    '--enable-admission-plugins=NodeRestriction',
    '--allow-privileged=true',
    // The node's name does not resolve.
    '--kubelet-preferred-address-types=InternalIP',
    `--client-ca-file=${pki('ca.crt')}`,
    `--tls-cert-file=${pki('apiserver.crt')}`,
    `--tls-private-key-file=${pki('apiserver.key')}`,
    `--kubelet-certificate-authority=${pki('ca.crt')}`,
    `--kubelet-client-certificate=${pki('apiserver-kubelet-client.crt')}`,
    `--kubelet-client-key=${pki('apiserver-kubelet-client.key')}`,
    '--service-account-issuer=https://kubernetes.default.svc.cluster.local',
    `--service-account-key-file=${pki('service-accounts.pub')}`,
    `--service-account-signing-key-file=${pki('service-accounts.key')}`,
    `--requestheader-client-ca-file=${pki('front-proxy-ca.crt')}`,
    '--requestheader-allowed-names=front-proxy-client',
    '--requestheader-extra-headers-prefix=X-Remote-Extra-',
    '--requestheader-group-headers=X-Remote-Group',
    '--requestheader-username-headers=X-Remote-User',
    `--proxy-client-cert-file=${pki('front-proxy-client.crt')}`,
    `--proxy-client-key-file=${pki('front-proxy-client.key')}`,
  ],
});

export const controllerManager = (kube: string): Command => ({
  name: 'kube-controller-manager',
  program: kube,
  args: [
    'kube-controller-manager',
    `--kubeconfig=${componentKubeconfig('controller-manager')}`,
    `--authentication-kubeconfig=${componentKubeconfig('controller-manager')}`,
    `--authorization-kubeconfig=${componentKubeconfig('controller-manager')}`,
    `--bind-address=127.0.0.1`,
    '--leader-elect=false',
    '--use-service-account-credentials=true',
    `--root-ca-file=${pki('ca.crt')}`,
    `--service-account-private-key-file=${pki('service-accounts.key')}`,
    `--cluster-signing-cert-file=${pki('ca.crt')}`,
    `--cluster-signing-key-file=${pki('ca.key')}`,
    `--client-ca-file=${pki('ca.crt')}`,
    `--requestheader-client-ca-file=${pki('front-proxy-ca.crt')}`,
    `--service-cluster-ip-range=${serviceRange}`,
    '--allocate-node-cidrs=false',
    // A claim whose event was missed is bound after two seconds instead of fifteen.
    '--pvclaimbinder-sync-period=2s',
    // Otherwise benchmarks with a thousand workspaces would measure this client's default of 20 calls per second.
    '--kube-api-qps=200',
    '--kube-api-burst=400',
  ],
});

export const scheduler = (kube: string): Command => ({
  name: 'kube-scheduler',
  program: kube,
  args: [
    'kube-scheduler',
    `--kubeconfig=${componentKubeconfig('scheduler')}`,
    `--authentication-kubeconfig=${componentKubeconfig('scheduler')}`,
    `--authorization-kubeconfig=${componentKubeconfig('scheduler')}`,
    '--bind-address=127.0.0.1',
    '--leader-elect=false',
    '--kube-api-qps=200',
    '--kube-api-burst=400',
  ],
});

/** `pauseImage` is already in containerd's store: nothing is pulled for a sandbox. */
export const containerd = (pauseImage: string): Command => ({
  name: 'containerd',
  program: 'containerd',
  args: ['--config', config('containerd.toml')],
  config: writeConfig(
    'containerd.toml',
    `version = 2
root = "${join(clusterDir, 'containerd')}"
state = "${join(runDir, 'containerd')}"
oom_score = 0
[grpc]
  address = "${containerdSocket}"
[debug]
  address = "${join(runDir, 'containerd-debug.sock')}"
[plugins."io.containerd.internal.v1.opt"]
  path = "${join(clusterDir, 'containerd-opt')}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${pauseImage}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "${cniConfigDir}"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "${registryHostsDir}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
`,
  ),
});

export const kubelet = (kube: string): Command => ({
  name: 'kubelet',
  program: kube,
  args: [
    'kubelet',
    `--config=${config('kubelet.yaml')}`,
    `--kubeconfig=${componentKubeconfig('kubelet')}`,
    `--root-dir=${join(clusterDir, 'kubelet')}`,
    `--cert-dir=${join(clusterDir, 'kubelet', 'pki')}`,
    `--hostname-override=${nodeName}`,
    `--node-ip=${nodeAddress}`,
  ],
  // The lowest possible thresholds, because a nearly full disk must not end a test.
  // NeverVerify: an image that was pulled under one name would be pulled again when it is used under another.
  // imageGCHighThresholdPercent 100: our images are in no registry, so a collected one would be lost.
  config: writeConfig(
    'kubelet.yaml',
    `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: ${nodeAddress}
port: ${ports.kubelet}
healthzBindAddress: 127.0.0.1
containerRuntimeEndpoint: unix://${containerdSocket}
podLogsDir: ${join(clusterDir, 'pod-logs')}
clusterDomain: cluster.local
clusterDNS: [${dnsServiceAddress}]
tlsCertFile: ${pki('kubelet-server.crt')}
tlsPrivateKeyFile: ${pki('kubelet-server.key')}
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: ${pki('ca.crt')}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
enforceNodeAllocatable: [pods]
localStorageCapacityIsolation: true
maxPods: 250
serializeImagePulls: false
kubeAPIQPS: 100
kubeAPIBurst: 200
registryPullQPS: 0
imagePullCredentialsVerificationPolicy: NeverVerify
imageMinimumGCAge: 87600h
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard:
  memory.available: 100Mi
  nodefs.available: 200Mi
  nodefs.inodesFree: 1%
  imagefs.available: 200Mi
`,
  ),
});

export const kubeProxy = (kube: string): Command => ({
  name: 'kube-proxy',
  program: kube,
  args: ['kube-proxy', `--config=${config('kube-proxy.yaml')}`],
  config: writeConfig(
    'kube-proxy.yaml',
    `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: ${componentKubeconfig('kube-proxy')}}
hostnameOverride: ${nodeName}
bindAddress: ${nodeAddress}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
mode: iptables
clusterCIDR: ${podRange}
oomScoreAdj: 0
iptables: {minSyncPeriod: 0s}
conntrack:
  maxPerCore: 0
  min: 0
  tcpEstablishedTimeout: 0s
  tcpCloseWaitTimeout: 0s
  udpTimeout: 0s
  udpStreamTimeout: 0s
`,
  ),
});

/** Resolves the cluster's services, and forwards everything else to the machine's own servers. */
export const dns = (coredns: string): Command => ({
  name: 'coredns',
  program: coredns,
  args: ['-conf', config('Corefile')],
  config: writeConfig(
    'Corefile',
    `.:53 {
  bind ${nodeAddress}
  errors
  ready 127.0.0.1:${ports.dnsReady}
  kubernetes cluster.local in-addr.arpa ip6.arpa {
    kubeconfig ${componentKubeconfig('admin')}
    pods insecure
    fallthrough in-addr.arpa ip6.arpa
    ttl 1
  }
  forward . /etc/resolv.conf
  cache 1
}
`,
  ),
});
