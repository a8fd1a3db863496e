import { randomUUID } from 'node:crypto';
import type { KubernetesSection } from '@cde/api/template-file.ts';
import type { ProviderError, WorkspaceSpec } from '../../provider.ts';
import { KubeError } from '../api/client.ts';
import type { Connection } from '../api/connections.ts';
import { isKind, type KubeObject } from '../api/models.ts';
import { StepFailure } from '../objects/failure.ts';
import { namespaceObject, renderNamespace } from '../objects/namespace.ts';
import { sectionOf } from '../objects/section.ts';
import { explainKernelProfile } from '../reasons/kernel-profiles.ts';
import { describeRejection, readSecretCopies } from './apply.ts';
import { secretsToCopy } from './apply-template.ts';

/** Exists on every cluster; a dry run leaves nothing in it. */
const anyNamespace = 'default';

/**
 * Applies each object of a rendered template as a dry run, and returns what the cluster rejects. With the smaller role,
 * which has no rights in other namespaces, it creates an empty namespace for this and deletes it. It cannot detect what
 * shows only at run time, such as Pod Security of a Deployment's pods or an exhausted quota.
 * @throws KubeError (`unreachable`)
 */
export async function dryRunTemplate(connection: Connection, spec: WorkspaceSpec): Promise<ProviderError[]> {
  const { client, view, grants, installation } = connection;
  const section = sectionOf(spec);
  const rejections: ProviderError[] = [];
  const note = (error: unknown, object?: Pick<KubeObject, 'kind' | 'metadata'>) => {
    if (error instanceof StepFailure) return void rejections.push(error.error);
    if (!(error instanceof KubeError) || error.unreachable || !object) throw error;
    rejections.push(describeRejection(error, object));
  };
  const copies = await readSecretCopies(client, secretsToCopy(section)).catch((error) => {
    note(error);
    return [];
  });
  // Existing objects of the same name must not matter.
  const suffix = randomUUID().slice(0, 8);
  const server = (await grants.identity())?.label;
  const own = server !== undefined;
  const namespace = own ? `cde-attempt-${suffix}` : anyNamespace;
  const launch = { buildId: randomUUID(), serverUrl: 'http://server.invalid', token: 'none' };
  const options = { namespace, installation, server, agentImage: 'agent', copies };
  try {
    if (own) {
      const object = namespaceObject(spec, options);
      try {
        view.upsert(await client.create(object));
      } catch (error) {
        note(error, object);
        return rejections;
      }
      await grants.ensure(namespace);
    }
    for (const object of renderNamespace(spec, launch, options)) {
      if (own && object.kind === 'Namespace') continue;
      const name = `${object.metadata.name.slice(0, 50)}-${suffix}`;
      await client
        .apply({ ...object, metadata: { ...object.metadata, name } }, { dryRun: true })
        .catch((error) => note(error, object));
    }
  } finally {
    if (own) await client.remove({ apiVersion: 'v1', kind: 'Namespace', name: namespace });
  }
  rejections.push(...(await missingClasses(connection, spec, section)));
  const kernel =
    section.kernelProfile === undefined ? null : await explainKernelProfile(client, section.kernelProfile);
  if (kernel) rejections.push(kernel);
  return rejections;
}

/** Storage classes that the template names and the cluster lacks. The API server accepts such claims; they stay pending. */
async function missingClasses(
  { client }: Connection,
  spec: WorkspaceSpec,
  section: KubernetesSection,
): Promise<ProviderError[]> {
  const classes = await client.list({ apiVersion: 'storage.k8s.io/v1', kind: 'StorageClass' });
  const names = new Set(classes.map(({ metadata }) => metadata.name));
  const hasDefault = classes.some(
    ({ metadata }) => metadata.annotations?.['storageclass.kubernetes.io/is-default-class'] === 'true',
  );
  const claims: { what: string; storageClass: string | undefined }[] = [
    { what: 'The home', storageClass: section.storageClass },
  ];
  for (const manifest of spec.template.manifests ?? []) {
    const what = `The ${manifest.kind} ${manifest.metadata.name}`;
    if (isKind(manifest, 'PersistentVolumeClaim'))
      claims.push({ what, storageClass: manifest.spec?.storageClassName });
    if (isKind(manifest, 'StatefulSet'))
      for (const template of manifest.spec?.volumeClaimTemplates ?? [])
        claims.push({ what, storageClass: template.spec?.storageClassName });
  }
  for (const service of section.services)
    if (service.storage) claims.push({ what: `The service ${service.name}`, storageClass: undefined });
  return claims.flatMap(({ what, storageClass }): ProviderError[] => {
    // '' selects an existing volume.
    if (storageClass === '' || (storageClass === undefined ? hasDefault : names.has(storageClass))) return [];
    return [
      {
        code: 'storage-class-missing',
        message:
          storageClass === undefined
            ? `${what} names no StorageClass, and the cluster has no default.`
            : `${what} names the StorageClass ${storageClass}, which the cluster does not have.`,
        hint: names.size > 0 ? `It has ${[...names].sort().join(', ')}.` : 'It has none at all.',
        fault: 'user',
      },
    ];
  });
}
