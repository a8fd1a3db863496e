import type { ProviderError } from '../../provider.ts';
import { type KubeClient, KubeError } from '../api/client.ts';
import type { Kube } from '../api/models.ts';
import { kernelProfileLabel } from '../api/names.ts';
import { readNodedReport } from './noded-report.ts';

/** More nodes with their reasons than this help nobody. */
const maxNodesListed = 3;

/** Explains why none of the nodes maintains the profile; null if one does. */
export function describeKernelProfile(profile: string, nodes: Kube<'Node'>[]): ProviderError | null {
  if (nodes.some(({ metadata }) => metadata.labels?.[kernelProfileLabel(profile)] === 'ready')) return null;
  const reasons = nodes.flatMap((node) => {
    const { profiles, fault } = readNodedReport(node);
    const known = profiles.find(({ name }) => name === profile);
    const why = known ? known.message : fault;
    return why ? [`${node.metadata.name}: ${why}`] : [];
  });
  const known = new Set(nodes.flatMap((node) => readNodedReport(node).profiles.map(({ name }) => name)));
  return {
    code: 'kernel-profile-missing',
    message: `No node of the cluster keeps the kernel profile ${profile}.`,
    ...(reasons.length > 0 && {
      detail: `${reasons.slice(0, maxNodesListed).join('\n')}${reasons.length > maxNodesListed ? `\nand ${reasons.length - maxNodesListed} more` : ''}`,
    }),
    hint:
      reasons.length > 0
        ? 'Ask an administrator to fix what noded reports (noded.profiles of the chart).'
        : `An administrator adds it to noded.profiles of the chart${known.size > 0 ? `; there are: ${[...known].sort().join(', ')}` : ''}. See docs/kernel-profiles.md.`,
    fault: 'user',
  };
}

/** A thousand pods that wait for the same nodes share one answer. */
const cacheMs = 15_000;
const cache = new WeakMap<KubeClient, Map<string, { at: number; answer: Promise<ProviderError | null> }>>();

/**
 * Why no node of the cluster maintains the profile; null if one does, or if the server cannot read nodes. Asks the cluster at most
 * every 15 s.
 */
export function explainKernelProfile(client: KubeClient, profile: string): Promise<ProviderError | null> {
  const answers = cache.get(client) ?? new Map();
  cache.set(client, answers);
  const before = answers.get(profile);
  if (before && performance.now() - before.at < cacheMs) return before.answer;
  const answer = findProblem(client, profile);
  answers.set(profile, { at: performance.now(), answer });
  answer.catch(() => answers.delete(profile));
  return answer;
}

async function findProblem(client: KubeClient, profile: string): Promise<ProviderError | null> {
  const nodes = { apiVersion: 'v1', kind: 'Node' } as const;
  try {
    const ready = await client.list({ ...nodes, labels: `${kernelProfileLabel(profile)}=ready` });
    return ready.length > 0 ? null : describeKernelProfile(profile, await client.list(nodes));
  } catch (error) {
    if (error instanceof KubeError && error.status === 403) return null;
    throw error;
  }
}
