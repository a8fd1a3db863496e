import type { Node, NodeKernelProfile, NodeResources } from '@cde/api/nodes.ts';

const looks: Record<Node['state'], [tone: string, word: string]> = {
  ready: ['good', 'Ready'],
  'not-ready': ['bad', 'Not ready'],
  unknown: ['warn', 'Unknown'],
};

/** Whether a node is ready, as a dot and a word. */
export function NodeState({ node }: { node: Node }) {
  const [tone, word] = looks[node.state];
  return (
    <>
      <span className={`status ${tone}`}>{word}</span>{' '}
      {!node.schedulable && <span className="chip">cordoned</span>}
    </>
  );
}

/** Whether a kernel profile is maintained; otherwise the reason as a code. */
export function ProfileState({ profile }: { profile: NodeKernelProfile }) {
  return profile.state === 'ready' ? (
    <span className="status good">ready</span>
  ) : (
    <span className="status bad">{profile.reason ?? 'not ready'}</span>
  );
}

/** `3.92 of 4`: what pods can use, and what the node has. Null if neither is known. */
export function share(
  { allocatable, capacity }: Node,
  key: keyof NodeResources,
  text: (value: number) => string = String,
): string | null {
  const [usable, all] = [allocatable[key], capacity[key]];
  if (all === null) return null;
  return usable === null || usable === all ? text(all) : `${text(usable)} of ${text(all)}`;
}
