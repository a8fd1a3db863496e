import type { NodeResources } from '@cde/api/nodes.ts';
import type { NodeIncident, ProviderNode, ProviderNodes } from '../provider.ts';
import { parseQuantity } from '../quantity.ts';
import type { ClusterView, Connection, Connections } from './api/connections.ts';
import { kernelProfileLabel, labels } from './api/names.ts';
import type { KubeNode } from './api/node-view.ts';
import { readNodedReport } from './reasons/noded-report.ts';
import { nodePoolOf } from './steps/node-pool.ts';

/** `4`, `3920m`. */
function parseCpus(quantity: string | undefined): number | null {
  const match = /^(\d{1,9}(?:\.\d{1,9})?)(m?)$/.exec(quantity ?? '');
  return match ? Number(match[1]) / (match[2] === 'm' ? 1000 : 1) : null;
}

const readResources = (given: Record<string, string> = {}): NodeResources => ({
  cpus: parseCpus(given.cpu),
  memoryBytes: parseQuantity(given.memory ?? ''),
  storageBytes: parseQuantity(given['ephemeral-storage'] ?? ''),
  pods: /^\d{1,9}$/.test(given.pods ?? '') ? Number(given.pods) : null,
});

/** The workspaces with a pod on each node. */
function groupByNode(view: ClusterView): Map<string, string[]> {
  const byNode = new Map<string, string[]>();
  for (const { metadata } of view.namespaces()) {
    const workspaceId = metadata.labels?.[labels.workspace];
    const node = view.get('Pod', metadata.name, 'workspace-0')?.spec?.nodeName;
    if (!workspaceId || !node) continue;
    const ids = byNode.get(node);
    if (ids) ids.push(workspaceId);
    else byNode.set(node, [workspaceId]);
  }
  return byNode;
}

function toProviderNode(
  node: KubeNode,
  { record, state: connectionState }: Connection,
  workspaceIds: readonly string[],
  poolLabel: string | undefined,
): ProviderNode {
  const { conditions, capacity, allocatable, nodeInfo } = node.status ?? {};
  const condition = conditions?.find(({ type }) => type === 'Ready');
  const state =
    connectionState !== 'ready' || !condition || condition.status === 'Unknown'
      ? 'unknown'
      : condition.status === 'True'
        ? 'ready'
        : 'not-ready';
  const report = readNodedReport(node);
  return {
    name: node.metadata.name,
    cluster: record.name,
    state,
    reason: state === 'ready' ? null : (condition?.message ?? condition?.reason ?? null),
    schedulable: node.spec?.unschedulable !== true,
    pool: nodePoolOf(node.metadata.labels, poolLabel),
    os: nodeInfo?.osImage || null,
    kernel: nodeInfo?.kernelVersion || null,
    architecture: nodeInfo?.architecture || null,
    runtime: nodeInfo ? `kubelet ${nodeInfo.kubeletVersion}, ${nodeInfo.containerRuntimeVersion}` : null,
    capacity: readResources(capacity),
    allocatable: readResources(allocatable),
    workspaceIds,
    kernelProfiles: report.profiles,
    kernelFault: report.fault,
    notRestored: report.notRestored,
  };
}

/** All nodes of all clusters, from the watches: it costs no call. */
export function listKubernetesNodes(
  connections: Pick<Connections, 'all'>,
  poolLabel: string | undefined,
): ProviderNodes {
  const result: ProviderNodes = { nodes: [], unseen: [] };
  for (const connection of connections.all()) {
    const { nodes, view, record, state, reason } = connection;
    if (!nodes.synced || state !== 'ready')
      result.unseen.push({
        name: record.name,
        reason: (state === 'away' ? reason : nodes.reason) ?? 'The server is connecting to it.',
      });
    const workspaces = groupByNode(view);
    for (const node of nodes.all())
      result.nodes.push(
        toProviderNode(node, connection, workspaces.get(node.metadata.name) ?? [], poolLabel),
      );
  }
  return result;
}

/** A server that starts reports what happened shortly before, and nothing older. */
const maxAgeMs = 3600_000;

/** What happened to the kernel profiles of a node, for those of its workspaces that need them. */
export function findIncidents(
  { view }: Connection,
  node: KubeNode,
  before: KubeNode | null,
  now: Date,
): NodeIncident[] {
  const { profiles } = readNodedReport(node);
  const earlier = new Map(
    before && readNodedReport(before).profiles.map((profile) => [profile.name, profile]),
  );
  const happened = profiles.flatMap(({ name, state, reason, message, since, lastDrift }) => {
    const old = earlier.get(name);
    const where = `The node ${node.metadata.name}`;
    const found: (Omit<NodeIncident, 'workspaceId'> & { profile: string })[] = [];
    const add = (what: string, at: string, level: 'info' | 'warn', text: string) =>
      found.push({
        profile: name,
        key: `${node.metadata.uid} ${name} ${what} ${at}`,
        at: new Date(at),
        level,
        text,
      });
    if (lastDrift && lastDrift.at !== old?.lastDrift?.at) {
      const { at, sysctl, from, to, by } = lastDrift;
      const source = by === null ? '' : ` (${by})`;
      add(
        'drift',
        at,
        'warn',
        `${where} drifted from the kernel profile ${name}: ${sysctl} was changed from ${to} to ${from}${source}. noded set it to ${to} again.`,
      );
    }
    if (since && since !== old?.since && (state === 'not-ready' || old?.state === 'not-ready'))
      add(
        state,
        since,
        state === 'ready' ? 'info' : 'warn',
        state === 'ready'
          ? `${where} maintains the kernel profile ${name} again.`
          : `${where} no longer maintains the kernel profile ${name} (${reason}): ${message}`,
      );
    return found;
  });
  // A report can have any time, also one to come.
  const recent = happened.filter(({ at }) => Math.abs(now.getTime() - at.getTime()) < maxAgeMs);
  if (recent.length === 0) return [];
  return view.namespaces().flatMap(({ metadata }) => {
    const workspaceId = metadata.labels?.[labels.workspace];
    const pod = view.get('Pod', metadata.name, 'workspace-0');
    if (!workspaceId || pod?.spec?.nodeName !== node.metadata.name) return [];
    const startedAt = Date.parse(pod.status?.startTime ?? pod.metadata.creationTimestamp ?? '');
    return recent
      .filter(
        ({ profile, at }) =>
          pod.spec?.nodeSelector?.[kernelProfileLabel(profile)] === 'ready' && at.getTime() >= startedAt,
      )
      .map(({ profile: _, ...incident }) => ({ workspaceId, ...incident }));
  });
}
