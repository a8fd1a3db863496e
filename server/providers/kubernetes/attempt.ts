import { randomUUID } from 'node:crypto';
import type { KubernetesSection } from '@cde/api/templates.ts';
import type { ProviderError, WorkspaceSpec } from '../provider.ts';
import { inWords, Refused, readCopies } from './apply.ts';
import { copiesOf } from './apply-all.ts';
import { KubeError, type KubeObject } from './client.ts';
import type { Connection } from './connections.ts';
import { explainKernelProfile } from './kernel-profiles.ts';
import { renderNamespace } from './namespace.ts';

/** Every cluster has it; of what is tried there nothing stays. */
const namespace = 'default';

/**
 * What a cluster says against the objects of a rendered template: each is applied as a dry run, so nothing is made.
 * What shows only in a running namespace (Pod Security of a Deployment's pods, a quota that is used up) is not seen.
 * Rejects with KubeError (`away`) when the cluster does not answer.
 */
export async function attempt({ client }: Connection, spec: WorkspaceSpec): Promise<ProviderError[]> {
  const section = spec.template.kubernetes as KubernetesSection;
  const refused: ProviderError[] = [];
  const note = (error: unknown, object?: KubeObject) => {
    if (error instanceof Refused) return void refused.push(error.error);
    if (!(error instanceof KubeError) || error.away || !object) throw error;
    refused.push(inWords(error, object));
  };
  const copies = await readCopies(client, copiesOf(section)).catch((error) => {
    note(error);
    return [];
  });
  const launch = { buildId: randomUUID(), serverUrl: 'http://server.invalid', token: 'none' };
  const options = { namespace, installation: 'attempt', agentImage: 'agent', copies };
  // What stands there under the same name has nothing to do with it.
  const suffix = randomUUID().slice(0, 8);
  for (const object of renderNamespace(spec, launch, options)) {
    const name = `${object.metadata.name.slice(0, 50)}-${suffix}`;
    await client
      .apply({ ...object, metadata: { ...object.metadata, name } }, { dryRun: true })
      .catch((error) => note(error, object));
  }
  const kernel =
    section.kernelProfile === undefined ? null : await explainKernelProfile(client, section.kernelProfile);
  if (kernel) refused.push(kernel);
  return refused;
}
