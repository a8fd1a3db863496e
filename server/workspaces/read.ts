import { createHash } from 'node:crypto';
import { Problem } from '@cde/api/problem.ts';
import type { Build, Workspace, WorkspaceStatus } from '@cde/api/workspaces.ts';
import type { Database } from '../database/pool.ts';
import type { UserActor } from '../http/actor.ts';
import { isAllowed } from '../identity/authorize.ts';
import { escapeLike, isUuid } from '../identity/cursor.ts';

/**
 * Workspaces as the API shows them: the most frequent reads of all. By hand and prepared, because here it
 * counts (bench/lists.ts): the columns that are shown and no others (a build's rendered template is many
 * times the rest), moments as text from PostgreSQL, and no plan made anew for a seven-table join.
 */
const isoTimestamp = (column: string) =>
  `to_char(${column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`;

const buildColumns = `
  b.id AS b_id, b.number AS b_number, b.transition AS b_transition, b.status AS b_status, b.stages AS b_stages,
  b.error AS b_error, b.initiator AS b_initiator, b.reason AS b_reason, b.cancel_requested AS b_cancel_requested,
  ${isoTimestamp('b.created_at')} AS b_created_at, ${isoTimestamp('b.started_at')} AS b_started_at,
  ${isoTimestamp('b.finished_at')} AS b_finished_at, bv.number AS b_version`;

const select = `
  SELECT w.id, w.owner_id, w.name, w.provider, w.parameters, w.desired, w.status, w.reason, w.isolation, w.cluster, w.namespace,
         w.agent_tls_key IS NOT NULL AS has_agent, w.agent_version, w.agent_ssh_host_key,
         ${isoTimestamp('w.agent_seen_at')} AS agent_seen_at, ${isoTimestamp('w.created_at')} AS created_at,
         ${isoTimestamp('w.updated_at')} AS updated_at,
         u.username AS owner, t.name AS template, v.number AS version, av.number AS active_version, ${buildColumns}
    FROM workspaces w
    JOIN users u ON u.id = w.owner_id
    JOIN templates t ON t.id = w.template_id
    JOIN template_versions v ON v.id = w.template_version_id
    LEFT JOIN template_versions av ON av.id = t.active_version_id
    LEFT JOIN builds b ON b.id = w.current_build_id
    LEFT JOIN template_versions bv ON bv.id = b.template_version_id`;

interface Row {
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
  has_agent: boolean;
  agent_version: string | null;
  agent_ssh_host_key: string | null;
  agent_seen_at: string | null;
  created_at: string;
  updated_at: string;
  owner: string;
  template: string;
  version: number;
  active_version: number | null;
  b_id: string | null;
  b_number: number;
  b_transition: Build['transition'];
  b_status: Build['status'];
  b_stages: Build['stages'];
  b_error: Build['error'];
  b_initiator: string;
  b_reason: string;
  b_cancel_requested: boolean;
  b_created_at: string;
  b_started_at: string | null;
  b_finished_at: string | null;
  b_version: number;
}

/** An agent reports every 30 s; after two missed reports it counts as away. */
const disconnectedAfterMs = 75_000;

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
    agent: {
      connected:
        row.has_agent &&
        row.agent_seen_at !== null &&
        now - Date.parse(row.agent_seen_at) < disconnectedAfterMs,
      version: row.agent_version,
      lastSeenAt: row.agent_seen_at,
      sshHostKey: row.agent_ssh_host_key,
    },
    latestBuild:
      row.b_id === null
        ? null
        : {
            id: row.b_id,
            workspaceId: row.id,
            number: row.b_number,
            transition: row.b_transition,
            status: row.b_status,
            templateVersion: row.b_version,
            stages: row.b_stages,
            error: row.b_error,
            initiator: row.b_initiator,
            reason: row.b_reason,
            cancelRequested: row.b_cancel_requested,
            createdAt: row.b_created_at,
            startedAt: row.b_started_at,
            finishedAt: row.b_finished_at,
          },
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}

/** One workspace as the API shows it; null when there is none. */
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

/** How a reference names a workspace: an id, `owner~name` (or `owner/name`), or a name of the actor's own. */
export function parseRef(ref: string, actor: UserActor): { id: string } | { owner: string; name: string } {
  if (isUuid(ref)) return { id: ref };
  const [owner, name] = ref.split(/[~/]/, 2);
  return name === undefined ? { owner: actor.username, name: ref } : { owner: owner!, name };
}

/** What a reference that names nothing (that the actor may see) is answered with. */
export const workspaceNotFound = (ref: string) =>
  new Problem('workspace-not-found', `There is no workspace ${ref.replace('~', '/')} that you may see.`, {
    actions: [{ kind: 'list-workspaces' }],
  });

/** The workspace that `ref` names, for who may read it; throws `workspace-not-found` otherwise. */
export async function showWorkspace(
  { pool }: Database,
  actor: UserActor,
  ref: string,
  now: Date,
): Promise<Workspace> {
  const named = parseRef(ref, actor);
  const { rows } = await pool.query<Row>(
    'id' in named
      ? { name: 'workspace-by-id', text: `${select} WHERE w.id = $1`, values: [named.id] }
      : {
          name: 'workspace-by-name',
          text: `${select} WHERE u.username = $1 AND w.name = $2 AND w.status <> 'deleted'`,
          values: [named.owner, named.name],
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
}

/** A page of the workspaces that the actor may read, newest first. */
export async function listWorkspaces(
  { pool }: Database,
  actor: UserActor,
  filter: ListFilter,
  now: Date,
): Promise<{ items: Workspace[]; next: string | null }> {
  if (filter.after !== undefined && !isUuid(filter.after))
    throw new Problem('bad-request', 'This `after` is not from a page of workspaces.', {
      hint: 'Pass on `next` of the page before, as it was.',
    });
  const values: unknown[] = [];
  const conditions: string[] = [];
  const add = (condition: (parameter: string) => string, value: unknown) => {
    values.push(value);
    conditions.push(condition(`$${values.length}`));
  };
  if (filter.status === undefined) conditions.push("w.status <> 'deleted'");
  else add((p) => `w.status = ${p}`, filter.status);
  if (filter.owner === 'me' || !isAllowed(actor, 'workspace:read', { ownerId: '' }))
    add((p) => `w.owner_id = ${p}`, actor.userId);
  if (filter.owner !== undefined && filter.owner !== 'me') add((p) => `u.username = ${p}`, filter.owner);
  if (filter.template !== undefined) add((p) => `t.name = ${p}`, filter.template);
  if (filter.search !== undefined)
    add((p) => `(w.name ILIKE ${p} OR u.username ILIKE ${p})`, `%${escapeLike(filter.search)}%`);
  if (filter.after !== undefined) add((p) => `w.id < ${p}`, filter.after);
  values.push(filter.limit + 1);
  const text = `${select} WHERE ${conditions.join(' AND ')} ORDER BY w.id DESC LIMIT $${values.length}`;
  // Named by its shape, so that PostgreSQL plans each of the few shapes once per connection: half of its work.
  const shape = createHash('sha256').update(text).digest('base64url').slice(0, 16);
  const { rows } = await pool.query<Row>({ name: `workspaces-${shape}`, text, values });
  const items = rows.slice(0, filter.limit).map((row) => toWorkspace(row, now.getTime()));
  return { items, next: rows.length > filter.limit ? (items.at(-1)?.id ?? null) : null };
}
