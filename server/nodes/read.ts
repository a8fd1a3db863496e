import type { Node, NodeWorkspace } from '@cde/api/nodes.ts';
import { Problem } from '@cde/api/problem.ts';
import { and, asc, count, eq, inArray, isNull } from 'drizzle-orm';
import type { Database } from '../database/pool.ts';
import { users, workspaces } from '../database/schema.ts';
import { fromCursor, toPage } from '../http/cursor.ts';
import type { Provider, ProviderNode, ProviderNodes } from '../providers/provider.ts';

type NodeProviders = ReadonlyMap<string, Pick<Provider, 'nodes'>>;
type FoundNode = ProviderNode & { provider: string };

/** Hosts first, then clusters by name. */
const keyOf = ({ cluster, provider, name }: Pick<Node, 'cluster' | 'provider' | 'name'>) =>
  `${cluster === null ? `0/${provider}` : `1/${cluster}`}/${name}`;

async function collect(
  providers: NodeProviders,
): Promise<{ nodes: FoundNode[]; unseen: ProviderNodes['unseen'] }> {
  const answers = await Promise.all(
    [...providers].map(async ([provider, { nodes }]) => ({ provider, ...(await nodes?.()) })),
  );
  return {
    nodes: answers
      .flatMap(({ provider, nodes = [] }) => nodes.map((node) => ({ ...node, provider })))
      .sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1)),
    unseen: answers.flatMap(({ unseen = [] }) => unseen),
  };
}

/** How many workspaces run with each of these providers, whose workspaces are all on one node. */
async function countRunning({ db }: Database, providers: string[]): Promise<Map<string, number>> {
  if (providers.length === 0) return new Map();
  const rows = await db
    .select({ provider: workspaces.provider, running: count() })
    .from(workspaces)
    .where(and(inArray(workspaces.provider, providers), eq(workspaces.status, 'running')))
    .groupBy(workspaces.provider);
  return new Map(rows.map(({ provider, running }) => [provider, running]));
}

function toNode({ workspaceIds, ...node }: FoundNode, running: ReadonlyMap<string, number>): Node {
  return { ...node, workspaces: workspaceIds?.length ?? running.get(node.provider) ?? 0 };
}

const hasProblem = (node: FoundNode) =>
  node.state !== 'ready' ||
  node.kernelFault !== null ||
  node.notRestored.length > 0 ||
  node.kernelProfiles.some(({ state }) => state !== 'ready');

export interface NodeFilter {
  limit: number;
  after?: string | undefined;
  cluster?: string | undefined;
  profile?: string | undefined;
  show: 'all' | 'problems';
  search?: string | undefined;
  /** Only the node of this workspace. */
  workspace?: { id: string; provider: string; status: string } | undefined;
}

/** A page of the nodes. The providers answer from memory, and the database is asked once for each page. */
export async function listNodes(
  database: Database,
  providers: NodeProviders,
  filter: NodeFilter,
): Promise<{ items: Node[]; next: string | null; unseen: ProviderNodes['unseen'] }> {
  const { nodes, unseen } = await collect(providers);
  const { workspace } = filter;
  const after =
    filter.after === undefined ? '' : fromCursor(filter.after, (key) => /^[01]\/[^/]+\/./.test(key));
  const found = nodes.filter(
    (node) =>
      keyOf(node) > after &&
      (filter.cluster === undefined || node.cluster === filter.cluster) &&
      (filter.profile === undefined || node.kernelProfiles.some(({ name }) => name === filter.profile)) &&
      (filter.show === 'all' || hasProblem(node)) &&
      (filter.search === undefined || node.name.toLowerCase().includes(filter.search.toLowerCase())) &&
      (workspace === undefined ||
        (node.provider === workspace.provider &&
          (node.workspaceIds?.includes(workspace.id) ?? workspace.status === 'running'))),
  );
  const shown = found.slice(0, filter.limit + 1);
  const running = await countRunning(database, [
    ...new Set(shown.flatMap(({ provider, workspaceIds }) => (workspaceIds === null ? [provider] : []))),
  ]);
  return { ...toPage(shown, filter.limit, keyOf, (node) => toNode(node, running)), unseen };
}

/** More do not run on one node of a cluster; on the host of a large installation they might. */
const maxWorkspaces = 1_000;

/** The node that `ref` names: `name`, or `cluster~name` (for a host, its provider in place of the cluster). */
export async function showNode(
  database: Database,
  providers: NodeProviders,
  ref: string,
): Promise<Node & { onNode: NodeWorkspace[] }> {
  const { nodes, unseen } = await collect(providers);
  const [place, name] = ref.includes('~') ? (ref.split('~', 2) as [string, string]) : [null, ref];
  const found = nodes.filter(
    (node) => node.name === name && (place === null || (node.cluster ?? node.provider) === place),
  );
  const [node, ...others] = found;
  if (!node)
    throw new Problem('node-not-found', `There is no node ${ref.replace('~', '/')}.`, {
      ...(unseen.length > 0 && {
        detail: `Not all nodes can be seen now: ${unseen.map((one) => `${one.name} (${one.reason})`).join(', ')}`,
      }),
      actions: [{ kind: 'list-nodes' }],
    });
  if (others.length > 0)
    throw new Problem('node-ambiguous', `Several clusters have a node named ${name}.`, {
      hint: `Name the cluster too: ${found.map((one) => `${one.cluster ?? one.provider}/${one.name}`).join(', ')}.`,
    });
  const running = await countRunning(database, node.workspaceIds === null ? [node.provider] : []);
  return { ...toNode(node, running), onNode: await readWorkspaces(database, node) };
}

function readWorkspaces({ db }: Database, { provider, workspaceIds }: FoundNode): Promise<NodeWorkspace[]> {
  return db
    .select({
      id: workspaces.id,
      owner: users.username,
      name: workspaces.name,
      status: workspaces.status,
    })
    .from(workspaces)
    .innerJoin(users, eq(users.id, workspaces.ownerId))
    .where(
      workspaceIds
        ? and(inArray(workspaces.id, [...workspaceIds]), isNull(workspaces.deletedAt))
        : and(eq(workspaces.provider, provider), eq(workspaces.status, 'running')),
    )
    .orderBy(asc(users.username), asc(workspaces.name))
    .limit(maxWorkspaces);
}
