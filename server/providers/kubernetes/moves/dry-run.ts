import { randomUUID } from 'node:crypto';
import type { KubernetesSection } from '@cde/api/templates.ts';
import type { ProviderError, WorkspaceSpec } from '../../provider.ts';
import { KubeError, type KubeObject } from '../api/client.ts';
import type { Connection } from '../api/connections.ts';
import { MoveFailure } from '../objects/failure.ts';
import { namespaceObject, renderNamespace } from '../objects/namespace.ts';
import { explainKernelProfile } from '../reasons/kernel-profiles.ts';
import { describeRejection, readSecretCopies } from './apply.ts';
import { secretsToCopy } from './apply-template.ts';

/** Every cluster has it; of what is tried there nothing stays. */
const anyNamespace = 'default';

/**
 * What a cluster says against the objects of a rendered template: each is applied as a dry run, so nothing is made. With
 * the smaller role, which has no rights in namespaces of others, an empty namespace is made for it and deleted again.
 * What shows only in a running namespace (Pod Security of a Deployment's pods, a quota that is used up) is not seen.
 * Rejects with KubeError (`away`) when the cluster does not answer.
 */
export async function dryRunTemplate(connection: Connection, spec: WorkspaceSpec): Promise<ProviderError[]> {
  const { client, view, grants, installation } = connection;
  const section = spec.template.kubernetes as KubernetesSection;
  const rejections: ProviderError[] = [];
  const note = (error: unknown, object?: KubeObject) => {
    if (error instanceof MoveFailure) return void rejections.push(error.error);
    if (!(error instanceof KubeError) || error.unreachable || !object) throw error;
    rejections.push(describeRejection(error, object));
  };
  const copies = await readSecretCopies(client, secretsToCopy(section)).catch((error) => {
    note(error);
    return [];
  });
  // What stands there under the same name has nothing to do with it.
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

interface ClaimSpec {
  storageClassName?: string;
}

/** Storage classes that the claims of a template name and the cluster does not have: the API takes such claims, and they wait. */
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
  for (const { kind, metadata, spec: of } of (spec.template.manifests ?? []) as KubeObject[]) {
    const { storageClassName, volumeClaimTemplates = [] } = (of ?? {}) as ClaimSpec & {
      volumeClaimTemplates?: { spec?: ClaimSpec }[];
    };
    const what = `The ${kind} ${metadata.name}`;
    if (kind === 'PersistentVolumeClaim') claims.push({ what, storageClass: storageClassName });
    if (kind === 'StatefulSet')
      for (const template of volumeClaimTemplates)
        claims.push({ what, storageClass: template.spec?.storageClassName });
  }
  for (const service of section.services)
    if (service.storage) claims.push({ what: `The service ${service.name}`, storageClass: undefined });
  return claims.flatMap(({ what, storageClass }): ProviderError[] => {
    // '' asks for a volume that is there already.
    if (storageClass === '' || (storageClass === undefined ? hasDefault : names.has(storageClass))) return [];
    return [
      {
        code: 'storage-class-missing',
        message:
          storageClass === undefined
            ? `${what} names no StorageClass, and the cluster has no default one.`
            : `${what} names the StorageClass ${storageClass}, which the cluster does not have.`,
        hint: names.size > 0 ? `It has ${[...names].sort().join(', ')}.` : 'It has none at all.',
        fault: 'user',
      },
    ];
  });
}
