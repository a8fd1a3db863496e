import type { Lease } from '@cde/api/activity.ts';
import type { CleanupPolicy } from '@cde/api/cleanup.ts';
import { leaseOwner, spanText } from '@cde/api/idle-text.ts';
import { Problem } from '@cde/api/problem.ts';
import { isPostponable } from '@cde/api/stop-warnings.ts';
import { and, eq, gt } from 'drizzle-orm';
import { v7 } from 'uuid';
import { type StoredDecision, workspaceLeases } from '../../database/idle-schema.ts';
import type { Database, Queryable } from '../../database/pool.ts';
import type { AgentActor, Caller, UserActor } from '../../http/actor.ts';
import { writeAudit } from '../../identity/audit/audit.ts';
import { type ActivityRow, insertEvents, targetOf } from '../../idle/activity-store.ts';
import { lockWorkspace } from '../store.ts';

/** A workspace can have so many leases at once: each program that runs in it may hold one. */
const maxLeases = 100;

type StoredLease = typeof workspaceLeases.$inferSelect;
type LeaseCaller = Caller<UserActor> | Caller<AgentActor>;
interface LeaseRequest {
  seconds: number;
  reason: string;
  /** The lease to extend. */
  renews?: string | undefined;
}

/** A lease that has not expired; with `by`, only one of theirs. */
const activeLease = (workspaceId: string, leaseId: string, at: Date, by?: string) =>
  and(
    eq(workspaceLeases.id, leaseId),
    eq(workspaceLeases.workspaceId, workspaceId),
    gt(workspaceLeases.expiresAt, at),
    by === undefined ? undefined : eq(workspaceLeases.by, by),
  );

/** `decision`: the workspace's last one. */
export function toLease(
  { id, by, reason, createdAt, expiresAt }: StoredLease,
  decision: StoredDecision | null,
): Lease {
  const { stopsAt = null, cause = null } = decision ?? {};
  const runEnds = stopsAt !== null && !isPostponable(cause) && stopsAt < expiresAt.getTime();
  return {
    id,
    by,
    reason,
    createdAt: createdAt.toISOString(),
    expiresAt: expiresAt.toISOString(),
    runEndsAt: runEnds ? new Date(stopsAt).toISOString() : null,
  };
}

/** Keeps workspaces awake until a moment, for users and for programs in them. */
export function makeLeases(deps: {
  database: Database;
  now: () => Date;
  bounds: () => Promise<CleanupPolicy>;
  /** Throws `workspace-not-found`. */
  read: (workspaceId: string) => Promise<ActivityRow>;
  /** Called after each change. Null: the workspace does not run. */
  decideAgain: (workspaceId: string) => Promise<StoredDecision | null>;
}) {
  const { now, read, decideAgain } = deps;
  const { db } = deps.database;

  /** Who asks: a user, or programs in the workspace. */
  const nameOf = ({ actor }: LeaseCaller) => (actor.kind === 'user' ? actor.username : 'workspace');

  async function checkGrant({ status, ref }: ActivityRow, seconds: number): Promise<void> {
    const { maxLeaseSeconds } = await deps.bounds();
    if (seconds > maxLeaseSeconds)
      throw new Problem(
        'lease-too-long',
        `A workspace can be kept awake for at most ${spanText(maxLeaseSeconds * 1000)} at a time.`,
        { hint: 'Ask for less, and renew it. An owner of this installation can change the bound.' },
      );
    if (status !== 'running' && status !== 'starting')
      throw new Problem(
        'workspace-not-running',
        `${ref.split('/')[1]} is ${status}, so there is nothing to keep awake.`,
        {
          actions: [{ kind: 'start-workspace', workspace: ref }],
        },
      );
  }

  async function checkNumber(tx: Queryable, workspaceId: string, at: Date): Promise<void> {
    const held = await tx.$count(
      workspaceLeases,
      and(eq(workspaceLeases.workspaceId, workspaceId), gt(workspaceLeases.expiresAt, at)),
    );
    if (held >= maxLeases)
      throw new Problem('too-many-leases', `${held} keep-awakes of this workspace are active already.`, {
        hint: 'End some of them, or wait until they expire.',
      });
  }

  /** Extends an active lease of the same caller. Null: it has ended. */
  async function renew(
    workspaceId: string,
    by: string,
    { id, at, expiresAt }: { id: string; at: Date; expiresAt: Date },
  ): Promise<StoredLease | null> {
    const [renewed] = await db
      .update(workspaceLeases)
      .set({ createdAt: at, expiresAt })
      .where(activeLease(workspaceId, id, at, by))
      .returning();
    return renewed ?? null;
  }

  async function insert(
    caller: LeaseCaller,
    row: ActivityRow,
    { reason, at, expiresAt }: { reason: string; at: Date; expiresAt: Date },
  ): Promise<StoredLease> {
    const { workspaceId } = row;
    const by = nameOf(caller);
    const lease = { id: v7(), workspaceId, by, reason, createdAt: at, expiresAt };
    const length = spanText(expiresAt.getTime() - at.getTime());
    await db.transaction(async (tx) => {
      // So that grants at the same time count each other.
      await lockWorkspace(tx, workspaceId);
      await checkNumber(tx, workspaceId, at);
      await tx.insert(workspaceLeases).values(lease);
      await insertEvents(tx, [
        {
          workspaceId,
          at: at.getTime(),
          until: expiresAt.getTime(),
          kind: 'lease-granted',
          by,
          text: `kept awake for ${length} by ${leaseOwner(by)}${reason ? `: ${reason}` : ''}`,
        },
      ]);
      await writeAudit(tx, caller, {
        ...targetOf(row),
        action: 'workspace.keep-awake',
        after: { id: lease.id, for: length, expiresAt: expiresAt.toISOString(), reason },
      });
    });
    return lease;
  }

  async function grant(
    caller: LeaseCaller,
    workspaceId: string,
    { seconds, reason, renews }: LeaseRequest,
  ): Promise<Lease> {
    const at = now();
    const by = nameOf(caller);
    const expiresAt = new Date(at.getTime() + seconds * 1000);
    const row = await read(workspaceId);
    await checkGrant(row, seconds);
    const renewed = renews === undefined ? null : await renew(workspaceId, by, { id: renews, at, expiresAt });
    const lease = renewed ?? (await insert(caller, row, { reason, at, expiresAt }));
    const decision = await decideAgain(workspaceId);
    return toLease(lease, decision);
  }

  async function end(caller: LeaseCaller, workspaceId: string, leaseId: string): Promise<void> {
    const at = now();
    const by = nameOf(caller);
    const row = await read(workspaceId);
    await db.transaction(async (tx) => {
      const active = activeLease(workspaceId, leaseId, at, by === 'workspace' ? by : undefined);
      const [before] = await tx.select().from(workspaceLeases).where(active).for('update');
      if (!before)
        throw new Problem('lease-not-found', 'There is no such keep-awake, or it has ended already.');
      await tx.update(workspaceLeases).set({ expiresAt: at }).where(eq(workspaceLeases.id, leaseId));
      await insertEvents(tx, [
        {
          workspaceId,
          at: at.getTime(),
          kind: 'lease-ended',
          by,
          text: `no longer kept awake by ${leaseOwner(before.by)}`,
        },
      ]);
      await writeAudit(tx, caller, {
        ...targetOf(row),
        action: 'workspace.keep-awake-end',
        before: {
          id: leaseId,
          by: before.by,
          expiresAt: before.expiresAt.toISOString(),
          reason: before.reason,
        },
      });
    });
    await decideAgain(workspaceId);
  }

  return { grant, end };
}
