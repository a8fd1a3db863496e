import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { CoreV1Api, KubeConfig } from '@kubernetes/client-node';
import { type KubeClient, KubeError } from '../api/client.ts';
import { makeKubeClient } from '../api/kube-client.ts';
import type { Kube, KubeObject } from '../api/models.ts';

/** The kubeconfig of the cluster that tests run on. */
export const readKubeconfig = (): string =>
  readFileSync(process.env.CDE_TEST_KUBECONFIG || join(homedir(), '.cache/cde/cluster/kubeconfig'), 'utf8');

/** An administrator's hands on the test cluster: our client, and what that has no need of. */
export interface TestCluster extends KubeClient {
  getPod(namespace: string, name: string): Promise<Kube<'Pod'> | null>;
  /** As `kubectl drain` does it. */
  evict(namespace: string, pod: string): Promise<void>;
  /** Has volumes deleted with their claims. */
  discardVolumes(labels: string, matches?: (volume: Kube<'PersistentVolume'>) => boolean): Promise<void>;
  /** A claim, a pod, a namespace: deleted, or not there. */
  removeObject(object: Pick<KubeObject, 'apiVersion' | 'kind' | 'metadata'>): Promise<void>;
}

export async function openTestCluster(): Promise<TestCluster> {
  const text = readKubeconfig();
  const client = await makeKubeClient({ name: 'test', credentials: { kind: 'kubeconfig', text } });
  const config = new KubeConfig();
  config.loadFromString(text);
  const core = config.makeApiClient(CoreV1Api);
  return {
    ...client,
    getPod: (namespace, name) => client.get({ apiVersion: 'v1', kind: 'Pod', namespace, name }),
    async evict(namespace, name) {
      await core.createNamespacedPodEviction({
        namespace,
        name,
        body: { apiVersion: 'policy/v1', kind: 'Eviction', metadata: { name, namespace } },
      });
    },
    async discardVolumes(labels, matches = () => true) {
      for (const volume of await client.list({ apiVersion: 'v1', kind: 'PersistentVolume', labels })) {
        if (!matches(volume)) continue;
        const ref = { apiVersion: 'v1', kind: 'PersistentVolume', name: volume.metadata.name };
        await client
          .patch(ref, { spec: { persistentVolumeReclaimPolicy: 'Delete' } })
          .catch((error: unknown) => {
            // One whose home a test has discarded can go in between.
            if (!(error instanceof KubeError) || error.status !== 404) throw error;
          });
      }
    },
    async removeObject({ apiVersion, kind, metadata: { name, namespace } }) {
      await client.remove({ apiVersion, kind, name, ...(namespace && { namespace }) });
    },
  };
}
