import { formatQuantity, parseQuantity } from '../../quantity.ts';
import type { PodSnapshot, Reason } from './reading.ts';

/** What the scheduler found missing, and on how many nodes. */
export interface Shortage {
  nodes: number;
  what: string;
}

/**
 * Parses the scheduler's message: `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated
 * taint {key: value}. preemption: …`. `whole`: what it says about the pod itself, which applies to all nodes.
 */
export function parseUnschedulable(
  message: string,
): { total: number; shortages: Shortage[]; whole: string | null } | null {
  const match = /^0\/(\d+) nodes are available: ?(.*)$/s.exec(message.trim());
  if (!match) return null;
  // The rest is about preemption and device claims, which are consequences.
  const said = match[2]!
    .replace(/\.?\s*(no new claims to deallocate|preemption:).*$/s, '')
    .replace(/\.$/, '');
  const parts = said.split(/, (?=\d+ )/);
  const shortages = parts.flatMap((part) => {
    const one = /^(\d+) (.*)$/s.exec(part.trim());
    return one ? [{ nodes: Number(one[1]), what: one[2]!.replace(/\.$/, '') }] : [];
  });
  return { total: Number(match[1]), shortages: shortages, whole: shortages.length === 0 ? said : null };
}

/** As people write it: `256Mi` instead of 268435456. */
export const formatAmount = (resource: string, amount: string): string =>
  /memory|storage/.test(resource) && /^\d{4,}$/.test(amount) ? formatQuantity(Number(amount)) : amount;

/** The pod's requests: containers together, or the largest init container. */
export function requested(pod: PodSnapshot, resource: string): string | null {
  const of = (one: { resources?: { requests?: Record<string, string>; limits?: Record<string, string> } }) =>
    one.resources?.requests?.[resource] ?? one.resources?.limits?.[resource];
  const single = pod.spec.containers.map(of).filter((text) => text !== undefined);
  const inits = (pod.spec.initContainers ?? []).map(of).filter((text) => text !== undefined);
  if (single.length === 0 && inits.length === 0) return null;
  const amount = resource === 'cpu' ? milli : (text: string) => parseQuantity(text) ?? Number(text);
  const total = single.reduce((sum, text) => sum + amount(text), 0);
  const largest = Math.max(total, ...inits.map(amount));
  const written = [...single, ...inits].find((text) => amount(text) === largest);
  if (written !== undefined && single.length <= 1) return formatAmount(resource, written);
  return resource === 'cpu' ? cores(largest) : formatQuantity(largest);
}
const milli = (text: string) => (text.endsWith('m') ? Number(text.slice(0, -1)) : Number(text) * 1000);
const cores = (amount: number) => (amount % 1000 === 0 ? String(amount / 1000) : `${amount}m`);

const kinds: {
  pattern: RegExp;
  words: (match: RegExpExecArray, pod: PodSnapshot) => string;
  about: 'resources' | 'choice' | 'volume' | 'node';
}[] = [
  {
    pattern: /^Insufficient (\S+)/,
    about: 'resources',
    words: ([, resource], pod) => {
      const asked = requested(pod, resource!);
      const name = resource === 'cpu' ? 'CPU' : resource;
      return `too little ${name} free${asked ? ` (${asked} requested)` : ''}`;
    },
  },
  { pattern: /^Too many pods/, about: 'resources', words: () => 'too many pods already' },
  {
    pattern: /Pod's node affinity\/selector/,
    about: 'choice',
    words: (_, pod) => {
      const wanted = Object.entries(pod.spec.nodeSelector ?? {}).map(([key, value]) => `${key}=${value}`);
      const profile = wanted.length === 1 && /^cde\.dev\/kernel-profile\.(.*)=ready$/.exec(wanted[0]!)?.[1];
      if (profile) return `not the requested kernel profile (${profile})`;
      return wanted.length > 0
        ? `not the requested labels (${wanted.join(', ')})`
        : 'not the labels that the node affinity asks for';
    },
  },
  {
    pattern: /untolerated taint \{([^}]*)\}/,
    about: 'choice',
    words: ([, taint]) => `a taint that is not tolerated (${taint!.replace(/: ?$/, '').replace(': ', '=')})`,
  },
  { pattern: /taint/, about: 'choice', words: () => 'a taint that is not tolerated' },
  { pattern: /were unschedulable/, about: 'node', words: () => 'closed for new pods (cordoned)' },
  {
    pattern:
      /didn't match PersistentVolume's node affinity|volume node affinity conflict|no available volume zone/,
    about: 'volume',
    words: () => 'not where the volume of the home is',
  },
  {
    pattern: /didn't find available persistent volumes to bind/,
    about: 'volume',
    words: () => 'no volume there that the claim could have',
  },
  { pattern: /did not have enough free storage/, about: 'volume', words: () => 'too little storage free' },
  {
    pattern: /exceed max volume count/,
    about: 'volume',
    words: () => 'as many volumes as the node can have',
  },
  { pattern: /non-existent pv/, about: 'volume', words: () => 'the volume of the claim is gone' },
  {
    pattern: /ReadWriteOncePod/,
    about: 'volume',
    words: () => 'the volume is in use by another pod, and admits only one',
  },
  { pattern: /free ports/, about: 'resources', words: () => 'a host port that is taken' },
  {
    pattern: /topology spread|affinity rules/,
    about: 'choice',
    words: () => 'rules about other pods not met',
  },
];

const hints = {
  resources:
    'Ask for less (parameters of the workspace, or the template), stop what is not needed, or have nodes added.',
  choice: "Check nodeSelector, tolerations and kernelProfile of the template against the cluster's nodes.",
  volume: 'The home can be used only on nodes that reach its volume: one of those needs room.',
  node: 'An administrator can open the nodes again (kubectl uncordon), or add some.',
};

/** Why no node fits the pod, in words with the requested amounts. `message` is the scheduler's. */
export function explainUnschedulable(pod: PodSnapshot, message: string): Reason {
  const parsed = parseUnschedulable(message);
  if (/no nodes available to schedule pods/.test(message) || parsed?.total === 0)
    return {
      code: 'no-nodes',
      message: 'The cluster has no node.',
      detail: message,
      hint: 'Ask an administrator to add nodes. The cluster then continues by itself.',
      fault: 'system',
      fatal: false,
    };
  if (!parsed || parsed.shortages.length === 0) {
    const gone = /persistentvolumeclaim "([^"]+)" (not found|bound to non-existent)/.exec(message);
    if (gone)
      return {
        code: gone[2] === 'not found' ? 'claim-missing' : 'volume-lost',
        message:
          gone[2] === 'not found'
            ? `The volume claim ${gone[1]} does not exist.`
            : `The volume of the claim ${gone[1]} is gone.`,
        detail: message,
        hint: 'Ask an administrator to restore the volume from a backup. The workspace does not start without it.',
        fault: 'system',
        fatal: false,
      };
    return {
      code: 'no-node-fits',
      message: 'No node fits the workspace.',
      detail: message,
      fault: 'system',
      fatal: false,
    };
  }
  const read = parsed.shortages.map(({ nodes, what }) => {
    for (const kind of kinds) {
      const match = kind.pattern.exec(what);
      if (match) return { nodes, about: kind.about, words: kind.words(match, pod) };
    }
    return { nodes, about: 'node' as const, words: what };
  });
  // The reason that excludes most nodes comes first; the template's own choices come last, because they are intended.
  const weight = (about: string) => (about === 'choice' ? 1 : 0);
  read.sort((a, b) => weight(a.about) - weight(b.about) || b.nodes - a.nodes);
  const nodes = (count: number) =>
    parsed.total === 1 ? 'the only one has' : `${count} of ${parsed.total} ${count === 1 ? 'has' : 'have'}`;
  const list = read
    .map(({ nodes: count, words }) =>
      /^(not|closed|no |the |as |rules)/.test(words)
        ? `${parsed.total === 1 ? 'the only one' : `${count} of ${parsed.total}`}: ${words}`
        : `${nodes(count)} ${words}`,
    )
    .join('; ');
  const first = read[0]!;
  return {
    code: first.about === 'volume' ? 'volume-elsewhere' : 'no-node-fits',
    message: `No node fits: ${list}.`,
    detail: message,
    hint: hints[first.about],
    fault: first.about === 'choice' ? 'user' : 'system',
    fatal: false,
  };
}
