import type { ProviderError } from '../provider.ts';
import { type KubeClient, KubeError, type KubeObject } from './client.ts';

/** The label of a node by which noded says that it keeps the profile. */
export const kernelProfileLabel = (profile: string) => `cde.dev/kernel-profile.${profile}`;

/** noded's own words on a node, by profile: noded/report.ts. */
interface Told {
  profiles?: Record<string, { state?: string; message?: string }>;
  fault?: string;
}

function toldBy(node: KubeObject): Told {
  try {
    return (JSON.parse(node.metadata.annotations?.['cde.dev/kernel-profiles'] ?? '{}') ?? {}) as Told;
  } catch {
    return {};
  }
}

/** As many nodes with their reasons as a person reads. */
const mostNamed = 3;

/** In words, why none of the nodes keeps the profile; null when one does. */
export function describeKernelProfile(profile: string, nodes: KubeObject[]): ProviderError | null {
  if (nodes.some(({ metadata }) => metadata.labels?.[kernelProfileLabel(profile)] === 'ready')) return null;
  const reasons = nodes.flatMap((node) => {
    const { profiles, fault } = toldBy(node);
    const why = profiles?.[profile]?.message ?? (profiles?.[profile] ? undefined : fault);
    return why ? [`${node.metadata.name}: ${why}`] : [];
  });
  const known = new Set(nodes.flatMap((node) => Object.keys(toldBy(node).profiles ?? {})));
  return {
    code: 'kernel-profile-missing',
    message: `No node of the cluster keeps the kernel profile ${profile}.`,
    ...(reasons.length > 0 && {
      detail: `${reasons.slice(0, mostNamed).join('\n')}${reasons.length > mostNamed ? `\nand ${reasons.length - mostNamed} more` : ''}`,
    }),
    hint:
      reasons.length > 0
        ? 'An administrator can put right what noded says against it (noded.profiles of the chart).'
        : `An administrator adds it to noded.profiles of the chart${known.size > 0 ? `; there are: ${[...known].sort().join(', ')}` : ''}. See docs/kernel-profiles.md.`,
    fault: 'user',
  };
}

/** A thousand pods that wait for the same nodes ask about them together. */
const freshMs = 15_000;
const asked = new WeakMap<KubeClient, Map<string, { at: number; answer: Promise<ProviderError | null> }>>();

/**
 * Why no node of the cluster keeps the profile; null when one does, and where the server may not see nodes. Asks
 * the cluster at most every 15 s.
 */
export function explainKernelProfile(client: KubeClient, profile: string): Promise<ProviderError | null> {
  const answers = asked.get(client) ?? new Map();
  asked.set(client, answers);
  const before = answers.get(profile);
  if (before && performance.now() - before.at < freshMs) return before.answer;
  const answer = ask(client, profile);
  answers.set(profile, { at: performance.now(), answer });
  answer.catch(() => answers.delete(profile));
  return answer;
}

async function ask(client: KubeClient, profile: string): Promise<ProviderError | null> {
  const nodes = { apiVersion: 'v1', kind: 'Node' };
  try {
    const ready = await client.list({ ...nodes, labels: `${kernelProfileLabel(profile)}=ready` });
    return ready.length > 0 ? null : describeKernelProfile(profile, await client.list(nodes));
  } catch (error) {
    if (error instanceof KubeError && error.status === 403) return null;
    throw error;
  }
}
