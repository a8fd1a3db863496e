// What a cluster has from its first minute: the default storage class and the name of its DNS server.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { until } from '../kit/until.ts';
import {
  clusterDir,
  dnsServiceAddress,
  nodeAddress,
  nodeName,
  provisionerName,
  storageClass,
} from './layout.ts';
import { runAsync } from './machine.ts';

const baseManifests = `apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: ${storageClass}
  annotations: {storageclass.kubernetes.io/is-default-class: "true"}
provisioner: ${provisionerName}
reclaimPolicy: Delete
allowVolumeExpansion: true
volumeBindingMode: Immediate
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  clusterIP: ${dnsServiceAddress}
  ports:
  - {name: dns, protocol: UDP, port: 53}
  - {name: dns-tcp, protocol: TCP, port: 53}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: kube-dns
  namespace: kube-system
  labels: {kubernetes.io/service-name: kube-dns}
addressType: IPv4
ports:
- {name: dns, protocol: UDP, port: 53}
- {name: dns-tcp, protocol: TCP, port: 53}
endpoints:
- addresses: [${nodeAddress}]
  nodeName: ${nodeName}
`;

/** Applies the manifests when the namespace kube-system exists; the API server creates it shortly after it is ready. */
export async function applyBaseManifests(kube: string, kubeconfig: string): Promise<void> {
  const file = join(clusterDir, 'config', 'basics.yaml');
  writeFileSync(file, baseManifests);
  let last = '';
  await until(
    () =>
      runAsync(kube, ['kubectl', '--kubeconfig', kubeconfig, 'apply', '--server-side', '-f', file]).then(
        () => true,
        (error: Error) => {
          last = error.message;
          return false;
        },
      ),
    Boolean,
    { forMs: 60_000, why: () => `the storage class and the DNS service could not be made: ${last}` },
  );
}
