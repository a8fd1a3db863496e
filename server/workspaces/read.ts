import { createHash } from 'node:crypto';
import { Problem } from '@cde/api/problem.ts';
import type { Workspace, WorkspaceStatus } from '@cde/api/workspaces.ts';
import type { PendingStop, StoredDecision } from '../database/idle-schema.ts';
import type { Database } from '../database/pool.ts';
import type { UserActor } from '../http/actor.ts';
import { escapeLike, isUuid } from '../http/cursor.ts';
import { isAllowed } from '../identity/auth/authorize.ts';
import { stateOf } from '../idle/evaluate.ts';
import { type BuildColumns, buildColumns, isoTimestamp, toBuild } from './builds/build-row.ts';

/**
 * Workspaces as the API shows them, the most frequent reads of all. The SQL is prepared and written by hand because it
 * is measurably faster (bench/lists.ts): only the columns shown, timestamps formatted by PostgreSQL, and no new plan for
 * a seven-table join on each request.
 */
const select = `
  SELECT w.id, w.owner_id, w.name, w.provider, w.parameters, w.desired, w.status, w.reason, w.isolation, w.cluster, w.namespace,
         a.decision, a.pending_stop, a.held, ${isoTimestamp('a.archived_at')} AS archived_at,
         ${isoTimestamp('a.deletes_at')} AS deletes_at,
         w.agent_tls_key IS NOT NULL AS has_agent, w.agent_version, w.agent_ssh_host_key, w.home_directory,
         ${isoTimestamp('w.agent_seen_at')} AS agent_seen_at, ${isoTimestamp('w.created_at')} AS created_at,
         ${isoTimestamp('w.updated_at')} AS updated_at,
         u.username AS owner, t.name AS template, v.number AS version, av.number AS active_version, ${buildColumns}
    FROM workspaces w
    JOIN users u ON u.id = w.owner_id
    JOIN templates t ON t.id = w.template_id
    JOIN template_versions v ON v.id = w.template_version_id
    LEFT JOIN template_versions av ON av.id = t.active_version_id
    LEFT JOIN builds b ON b.id = w.current_build_id
    LEFT JOIN template_versions bv ON bv.id = b.template_version_id
    LEFT JOIN workspace_activity a ON a.workspace_id = w.id`;

/** The build's columns are null if the workspace has none. */
interface Row extends Omit<BuildColumns, 'b_id'> {
  b_id: string | null;
  id: string;
  owner_id: string;
  name: string;
  provider: string;
  parameters: Workspace['parameters'];
  desired: Workspace['desired'];
  status: WorkspaceStatus;
  reason: string | null;
  isolation: string | null;
  cluster: string | null;
  namespace: string | null;
  decision: StoredDecision | null;
  pending_stop: PendingStop | null;
  held: boolean | null;
  archived_at: string | null;
  deletes_at: string | null;
  has_agent: boolean;
  agent_version: string | null;
  home_directory: string | null;
  agent_ssh_host_key: string | null;
  agent_seen_at: string | null;
  created_at: string;
  updated_at: string;
  owner: string;
  template: string;
  version: number;
  active_version: number | null;
}

/** An agent reports every 30 s, and counts as disconnected after two missed reports. */
const disconnectedAfterMs = 75_000;

/** A type guard, because copying the row would cost a list of a thousand workspaces several percent. */
const hasBuild = (row: Row): row is Row & BuildColumns => row.b_id !== null;

function toWorkspace(row: Row, now: number): Workspace {
  return {
    id: row.id,
    owner: row.owner,
    name: row.name,
    template: row.template,
    templateVersion: row.version,
    activeTemplateVersion: row.active_version ?? row.version,
    outdated: row.active_version !== null && row.active_version !== row.version,
    provider: row.provider,
    parameters: row.parameters,
    desired: row.desired,
    status: row.status,
    reason: row.reason,
    isolation: row.isolation,
    cluster: row.cluster,
    namespace: row.namespace,
    home: row.home_directory ?? `/home/${row.owner}`,
    agent: {
      connected:
        row.has_agent &&
        row.agent_seen_at !== null &&
        now - Date.parse(row.agent_seen_at) < disconnectedAfterMs,
      version: row.agent_version,
      lastSeenAt: row.agent_seen_at,
      sshHostKey: row.agent_ssh_host_key,
    },
    idle:
      row.status === 'running'
        ? stateOf({ decision: row.decision, pendingStop: row.pending_stop, held: row.held ?? false }, now)
        : null,
    archivedAt: row.archived_at,
    deletesAt: row.deletes_at,
    latestBuild: hasBuild(row) ? toBuild(row, row.id) : null,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}

/** One workspace as the API shows it; null if it does not exist. */
export async function readWorkspace(
  { pool }: Database,
  id: string,
  now: Date,
): Promise<{ workspace: Workspace; ownerId: string } | null> {
  const { rows } = await pool.query<Row>({
    name: 'workspace-by-id',
    text: `${select} WHERE w.id = $1`,
    values: [id],
  });
  const row = rows[0];
  return row ? { workspace: toWorkspace(row, now.getTime()), ownerId: row.owner_id } : null;
}

/** Parses a reference to a workspace: an id, `owner~name` (or `owner/name`), or the name of one of the actor's own. */
export function parseRef(ref: string, actor: UserActor): { id: string } | { owner: string; name: string } {
  if (isUuid(ref)) return { id: ref };
  const [owner, name] = ref.split(/[~/]/, 2);
  return name === undefined ? { owner: actor.username, name: ref } : { owner: owner!, name };
}

/** The error for a workspace that does not exist or that the actor cannot see; it must not tell which. */
export const workspaceNotFound = (ref: string) =>
  new Problem(
    'workspace-not-found',
    `There is no workspace ${ref.replace('~', '/')}, or you cannot see it.`,
    {
      actions: [{ kind: 'list-workspaces' }],
    },
  );

/** The workspace that `ref` names. Throws `workspace-not-found`, also if the actor cannot read it. */
export async function showWorkspace(
  { pool }: Database,
  actor: UserActor,
  ref: string,
  now: Date,
): Promise<Workspace> {
  const parsed = parseRef(ref, actor);
  const { rows } = await pool.query<Row>(
    'id' in parsed
      ? { name: 'workspace-by-id', text: `${select} WHERE w.id = $1`, values: [parsed.id] }
      : {
          name: 'workspace-by-name',
          text: `${select} WHERE u.username = $1 AND w.name = $2 AND w.status <> 'deleted'`,
          values: [parsed.owner, parsed.name],
        },
  );
  const row = rows[0];
  if (!row || !isAllowed(actor, 'workspace:read', { ownerId: row.owner_id })) throw workspaceNotFound(ref);
  return toWorkspace(row, now.getTime());
}

export interface ListFilter {
  limit: number;
  after?: string | undefined;
  owner?: string | undefined;
  status?: WorkspaceStatus | undefined;
  template?: string | undefined;
  search?: string | undefined;
  archived?: 'exclude' | 'include' | 'only' | undefined;
}

/** A page of the workspaces that the actor can read, newest first. */
export async function listWorkspaces(
  { pool }: Database,
  actor: UserActor,
  filter: ListFilter,
  now: Date,
): Promise<{ items: Workspace[]; next: string | null }> {
  if (filter.after !== undefined && !isUuid(filter.after))
    throw new Problem('bad-request', 'This `after` is not from a page of workspaces.', {
      hint: 'Pass the `next` of the previous page unchanged.',
    });
  const values: unknown[] = [];
  const conditions: string[] = [];
  const add = (condition: (parameter: string) => string, value: unknown) => {
    values.push(value);
    conditions.push(condition(`$${values.length}`));
  };
  if (filter.status === undefined) conditions.push("w.status <> 'deleted'");
  else add((p) => `w.status = ${p}`, filter.status);
  if (filter.archived === 'only') conditions.push('a.archived_at IS NOT NULL');
  else if (filter.archived !== 'include' && filter.status !== 'deleted')
    // Its owner must see that it will be deleted.
    conditions.push('(a.archived_at IS NULL OR a.deletes_at IS NOT NULL)');
  if (filter.owner === 'me' || !isAllowed(actor, 'workspace:read', { ownerId: '' }))
    add((p) => `w.owner_id = ${p}`, actor.userId);
  if (filter.owner !== undefined && filter.owner !== 'me') add((p) => `u.username = ${p}`, filter.owner);
  if (filter.template !== undefined) add((p) => `t.name = ${p}`, filter.template);
  if (filter.search !== undefined)
    add((p) => `(w.name ILIKE ${p} OR u.username ILIKE ${p})`, `%${escapeLike(filter.search)}%`);
  if (filter.after !== undefined) add((p) => `w.id < ${p}`, filter.after);
  values.push(filter.limit + 1);
  const text = `${select} WHERE ${conditions.join(' AND ')} ORDER BY w.id DESC LIMIT $${values.length}`;
  // A prepared statement for each of the few query shapes: PostgreSQL then plans once per connection, which halves its work.
  const shape = createHash('sha256').update(text).digest('base64url').slice(0, 16);
  const { rows } = await pool.query<Row>({ name: `workspaces-${shape}`, text, values });
  const items = rows.slice(0, filter.limit).map((row) => toWorkspace(row, now.getTime()));
  return { items, next: rows.length > filter.limit ? (items.at(-1)?.id ?? null) : null };
}
