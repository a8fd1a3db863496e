import type { AdoptedHome, Orphan } from '@cde/api/clusters.ts';
import { Problem } from '@cde/api/problem.ts';
import { and, eq, inArray, ne } from 'drizzle-orm';
import type { Database } from '../database/pool.ts';
import { users, workspaces } from '../database/schema.ts';
import type { Caller } from '../http/actor.ts';
import { isUuid } from '../http/cursor.ts';
import { type SystemCaller, writeAudit } from '../identity/audit/audit.ts';
import type { Logger } from '../log.ts';
import type { PlatformObject, PlatformObjects, Provider } from '../providers/provider.ts';
import { findOwner, insertAdoptedHome, latestTemplate, retentionOf } from './adopted-home.ts';
import { minAgeMs, settleMs } from './age.ts';
import type { AdoptRequest, OrphanSelection, OrphanSource } from './source.ts';

export interface ProviderOrphanDeps {
  database: Database;
  providers: ReadonlyMap<string, Provider>;
  homeGraceMs: number;
  now: () => Date;
  log: Logger;
}

interface Row {
  id: string;
  owner: string;
  name: string;
  provider: string;
  status: string;
  deletedAt: Date | null;
  homeKeptUntil: Date | null;
}

/** An orphan with the object of the platform that it stands for. */
interface Finding {
  orphan: Orphan;
  object: PlatformObject;
  objects: PlatformObjects;
}

/** Compute is removed before the network that it uses. */
const order: PlatformObject['kind'][] = ['compute', 'network', 'volume', 'home'];

/**
 * What providers have on their platforms for workspaces that are not in the database: Docker engines, the server's own
 * machine. Homes are never deleted.
 */
export function makeProviderOrphans(deps: ProviderOrphanDeps): OrphanSource {
  const { database, now, log } = deps;

  async function scan({ cluster, provider: only }: OrphanSelection) {
    const findings: Finding[] = [];
    const unseen: string[] = [];
    for (const { name, objects } of cluster === undefined ? deps.providers.values() : []) {
      if (!objects || (only !== undefined && only !== name)) continue;
      try {
        // Objects before rows: a workspace created in between has its row first.
        const listed = await objects.list();
        const rows = await rowsOf(database, listed);
        for (const object of listed) {
          const orphan = judge(name, object, rows.get(object.workspaceId ?? ''), now());
          if (orphan) findings.push({ orphan, object, objects });
        }
      } catch (error) {
        log.warn({ err: error, provider: name }, 'The objects of a provider could not be listed');
        unseen.push(name);
      }
    }
    findings.sort((a, b) => order.indexOf(a.object.kind) - order.indexOf(b.object.kind));
    return { findings, unseen };
  }

  async function remove(
    { orphan, object, objects }: Finding,
    caller: Caller | SystemCaller,
  ): Promise<Orphan> {
    const left = (reason: string): Orphan => ({ ...orphan, action: 'report', reason });
    try {
      if (object.workspaceId !== null && (await isInUse(database, object.workspaceId)))
        return left('It has a workspace again. Nothing was changed.');
      if (!(await objects.remove(object)))
        return left('It is still in use, or has changed. Nothing was changed.');
    } catch (error) {
      log.warn({ err: error, orphan: object.name }, 'An orphan could not be deleted');
      return left(`It could not be deleted: ${(error as Error).message}`);
    }
    await recordRemoval(database, caller, { orphan, object });
    log.info({ provider: orphan.provider, kind: object.kind, name: object.name }, 'Deleted an orphan');
    return orphan;
  }

  return {
    async find(selection) {
      const { findings, unseen } = await scan(selection);
      return { items: findings.map(({ orphan }) => orphan), unseen };
    },
    async clean({ dryRun, caller, onlyCaches = false, ...selection }) {
      const { findings } = await scan(selection);
      const items: Orphan[] = [];
      for (const finding of findings) {
        const isWanted =
          finding.orphan.action === 'delete' && (!onlyCaches || finding.object.workspaceId === null);
        items.push(isWanted && !dryRun ? await remove(finding, caller) : finding.orphan);
      }
      return { items, done: !dryRun };
    },
    adopt: (request, caller) => adopt(deps, scan, request, caller),
  };
}

const recordRemoval = (
  { db }: Database,
  caller: Caller | SystemCaller,
  { orphan, object }: Pick<Finding, 'orphan' | 'object'>,
) =>
  writeAudit(db, caller, {
    action: 'provider.clean-orphan',
    targetType: 'provider',
    targetId: orphan.provider,
    targetName: `${orphan.provider}/${object.name}`,
    before: { kind: object.kind, workspaceId: object.workspaceId, reason: orphan.reason },
  });

async function adopt(
  { database, now, homeGraceMs }: ProviderOrphanDeps,
  scan: (selection: OrphanSelection) => Promise<{ findings: Finding[]; unseen: string[] }>,
  { name, owner, ...selection }: AdoptRequest,
  caller: Caller,
): Promise<AdoptedHome[] | null> {
  const { findings } = await scan(selection);
  const found = findings.find(({ orphan }) => orphan.kind === 'home' && orphan.name === name);
  if (!found) return null;
  const { orphan, object, objects } = found;
  const { db } = database;
  // Check that the home can have an owner before anything is changed.
  await findOwner(db, owner ?? object.owner ?? '');
  await latestTemplate(db, orphan.provider);
  for (const other of findings) {
    const isItsCompute = other.object.workspaceId === object.workspaceId && other.object.kind !== 'home';
    if (other.objects !== objects || !isItsCompute) continue;
    if (!(await objects.remove(other.object)))
      throw new Problem('orphan-not-found', `The home ${name} is still in use.`, {
        detail: `${other.object.name} could not be removed.`,
        actions: [{ kind: 'list-orphans' }],
      });
    await recordRemoval(database, caller, other);
  }
  const { keptUntil, retainedAt } = retentionOf(now(), homeGraceMs);
  // The start of an id is its time, which is the same for workspaces of the same minute.
  const workspaceName = object.workspaceName ?? `home-${(object.workspaceId ?? name).slice(-8)}`;
  return db.transaction(async (tx) => {
    const adopted = await insertAdoptedHome(
      tx,
      caller,
      { keptUntil, now: now() },
      {
        provider: orphan.provider,
        owner: owner ?? object.owner ?? '',
        name: workspaceName,
        formerOwner: object.owner ?? null,
        formerWorkspaceId: object.workspaceId,
        volume: object.name,
        cluster: null,
        state: {},
      },
    );
    // Last, so that nothing is stored if the platform rejects it.
    const state = await objects.adopt(object, adopted.id, retainedAt);
    if (!state)
      throw new Problem('orphan-not-found', `There is no orphan ${name} on ${orphan.provider} any longer.`, {
        actions: [{ kind: 'list-orphans' }],
      });
    await tx.update(workspaces).set({ providerState: state }).where(eq(workspaces.id, adopted.id));
    return [
      {
        id: adopted.id,
        owner: adopted.owner,
        workspace: workspaceName,
        cluster: null,
        provider: orphan.provider,
        volume: object.name,
        size: null,
        keptUntil: keptUntil.toISOString(),
      },
    ];
  });
}

/** The orphan that an object is, given the workspace that it belongs to; null: it is not one. */
function judge(provider: string, object: PlatformObject, row: Row | undefined, now: Date): Orphan | null {
  const age = (moment: Date | null) => (moment ? now.getTime() - moment.getTime() : Number.POSITIVE_INFINITY);
  if (age(object.createdAt) < minAgeMs) return null;
  const orphan = (reason: string): Orphan => ({
    kind: object.kind,
    provider,
    cluster: null,
    name: object.name,
    workspaceId: object.workspaceId && isUuid(object.workspaceId) ? object.workspaceId : null,
    since: object.createdAt?.toISOString() ?? null,
    reason,
    action: object.kind === 'home' ? 'keep' : 'delete',
  });
  if (object.kind !== 'home' && object.workspaceId === null)
    return orphan('It is from an earlier version of the server, and no workspace uses it.');
  if (!row)
    return orphan(
      object.kind === 'home'
        ? object.owner
          ? `The home of ${object.owner}/${object.workspaceName}, which is not in the database.`
          : 'The home of a workspace that is not in the database.'
        : 'Its workspace is not in the database.',
    );
  if (row.status !== 'deleted' || age(row.deletedAt) < settleMs) return null;
  if (object.kind !== 'home') return orphan(`Its workspace ${row.owner}/${row.name} was deleted.`);
  return row.homeKeptUntil
    ? null
    : orphan(`The home of ${row.owner}/${row.name}, which the server no longer keeps.`);
}

async function rowsOf({ db }: Database, objects: PlatformObject[]): Promise<Map<string, Row>> {
  const ids = [...new Set(objects.map(({ workspaceId }) => workspaceId ?? '').filter(isUuid))];
  if (ids.length === 0) return new Map();
  const rows = await db
    .select({
      id: workspaces.id,
      owner: users.username,
      name: workspaces.name,
      provider: workspaces.provider,
      status: workspaces.status,
      deletedAt: workspaces.deletedAt,
      homeKeptUntil: workspaces.homeKeptUntil,
    })
    .from(workspaces)
    .innerJoin(users, eq(users.id, workspaces.ownerId))
    .where(inArray(workspaces.id, ids));
  return new Map(rows.map((row) => [row.id, row]));
}

async function isInUse({ db }: Database, id: string): Promise<boolean> {
  if (!isUuid(id)) return false;
  const [row] = await db
    .select({ id: workspaces.id })
    .from(workspaces)
    .where(and(eq(workspaces.id, id), ne(workspaces.status, 'deleted')));
  return row !== undefined;
}
