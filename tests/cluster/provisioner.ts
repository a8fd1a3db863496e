// A test provisioner: it creates a folder and a hostPath volume for each claim of our storage class, and removes both
// when the claim is deleted and the volume's policy is Delete. It has no topology and no finalizers. Runs as a process of the cluster: `node provisioner.ts KUBECONFIG`.
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import {
  ApiException,
  CoreV1Api,
  KubeConfig,
  makeInformer,
  PatchStrategy,
  setHeaderOptions,
  type V1PersistentVolume,
  type V1PersistentVolumeClaim,
} from '@kubernetes/client-node';
import { provisionerName, storageClass, volumeDir } from './layout.ts';

const config = new KubeConfig();
config.loadFromFile(process.argv[2]!);
const core = config.makeApiClient(CoreV1Api);

const provisionedBy = 'pv.kubernetes.io/provisioned-by';
const finalNote = (code: number) => (error: unknown) => {
  if (!(error instanceof ApiException) || error.code !== code) throw error;
};

async function provision(claim: V1PersistentVolumeClaim): Promise<void> {
  const { metadata, spec, status } = claim;
  if (spec?.storageClassName !== storageClass || status?.phase !== 'Pending') return;
  // A claim that names its volume or selects it by label waits for that volume.
  if (spec.volumeName || spec.selector || metadata?.deletionTimestamp) return;
  const name = `pvc-${metadata!.uid}`;
  const path = join(volumeDir, name);
  // root's, as a real provisioner's: a hostPath ignores fsGroup, so who writes into it must see to that himself.
  mkdirSync(path, { recursive: true, mode: 0o755 });
  await core
    .createPersistentVolume({
      body: {
        metadata: { name, annotations: { [provisionedBy]: provisionerName } },
        spec: {
          storageClassName: storageClass,
          capacity: { storage: spec.resources!.requests!.storage! },
          accessModes: spec.accessModes,
          volumeMode: 'Filesystem',
          persistentVolumeReclaimPolicy: 'Delete',
          hostPath: { path, type: 'Directory' },
          claimRef: {
            apiVersion: 'v1',
            kind: 'PersistentVolumeClaim',
            namespace: metadata!.namespace,
            name: metadata!.name,
            uid: metadata!.uid,
          },
        },
      },
    })
    .then(() => console.log(`made ${name} for ${metadata!.namespace}/${metadata!.name}`))
    .catch(finalNote(409));
}

/** Grows a volume at once: a folder has no size. */
async function grow(claim: V1PersistentVolumeClaim): Promise<void> {
  const { metadata, spec, status } = claim;
  const wanted = spec?.resources?.requests?.storage;
  if (spec?.storageClassName !== storageClass || status?.phase !== 'Bound' || !wanted) return;
  if (status.capacity?.storage === wanted || !spec.volumeName) return;
  const volume = await core.readPersistentVolume({ name: spec.volumeName });
  if (volume.metadata?.annotations?.[provisionedBy] !== provisionerName) return;
  const merge = setHeaderOptions('Content-Type', PatchStrategy.MergePatch);
  await core.patchPersistentVolume(
    { name: spec.volumeName, body: { spec: { capacity: { storage: wanted } } } },
    merge,
  );
  await core.patchNamespacedPersistentVolumeClaimStatus(
    {
      name: metadata!.name!,
      namespace: metadata!.namespace!,
      body: { status: { capacity: { storage: wanted } } },
    },
    merge,
  );
  console.log(`grew ${spec.volumeName} to ${wanted}`);
}

async function reclaim(volume: V1PersistentVolume): Promise<void> {
  const { metadata, spec, status } = volume;
  if (metadata?.annotations?.[provisionedBy] !== provisionerName || metadata.deletionTimestamp) return;
  if (status?.phase !== 'Released' || spec?.persistentVolumeReclaimPolicy !== 'Delete') return;
  const path = spec.hostPath?.path;
  // Only folders of ours: the path of a volume may have been edited.
  if (path?.startsWith(`${volumeDir}/pvc-`)) rmSync(path, { recursive: true, force: true });
  await core.deletePersistentVolume({ name: metadata.name! }).catch(finalNote(404));
  console.log(`removed ${metadata.name}`);
}

const attempt =
  <T>(work: (item: T) => Promise<void>) =>
  (item: T) =>
    work(item).catch((error: unknown) => console.error(error instanceof Error ? error.message : error));

const claimSeen = async (claim: V1PersistentVolumeClaim) => {
  await attempt(provision)(claim);
  await attempt(grow)(claim);
};
const volumeSeen = attempt(reclaim);

const claims = makeInformer(config, '/api/v1/persistentvolumeclaims', () =>
  core.listPersistentVolumeClaimForAllNamespaces(),
);
const volumes = makeInformer(config, '/api/v1/persistentvolumes', () => core.listPersistentVolume());
for (const verb of ['add', 'update'] as const) {
  claims.on(verb, claimSeen);
  volumes.on(verb, volumeSeen);
}
// A watch ends with the API server; restart it until the API server is back.
const keep = (informer: {
  start(): Promise<void>;
  on(verb: 'error', call: (error: unknown) => void): void;
}) => {
  const again = () => setTimeout(() => void informer.start().catch(again), 1000);
  informer.on('error', again);
  void informer.start().catch(again);
};
keep(claims);
keep(volumes);

// Retries what failed, or was missed while a watch was down.
setInterval(async () => {
  const [allClaims, allVolumes] = await Promise.all([
    core.listPersistentVolumeClaimForAllNamespaces(),
    core.listPersistentVolume(),
  ]).catch(() => [{ items: [] }, { items: [] }]);
  for (const claim of allClaims.items) await claimSeen(claim);
  for (const volume of allVolumes.items) await volumeSeen(volume);
}, 10_000);
