import { createHash } from 'node:crypto';
import type {
  AgentActivity,
  EffectiveIdlePolicy,
  IdleReply,
  NoActivity,
  ShutdownRequest,
  StopCause,
} from '@cde/api/activity.ts';
import type { CleanupPolicy } from '@cde/api/cleanup.ts';
import { isPostponable, longestWarningMs, warningsOf } from '@cde/api/stop-warnings.ts';
import { sql } from 'drizzle-orm';
import type { Database, Queryable } from '../database/pool.ts';
import type { Bus } from '../events/bus.ts';
import type { AgentActor } from '../http/actor.ts';
import {
  type ActivityChange,
  type ActivityRow,
  insertEvents,
  lockActivity,
  type NewEvent,
  readActivity,
  writeActivity,
} from './activity-store.ts';
import { type Evaluated, evaluate } from './evaluate.ts';
import { mergeReport } from './merge.ts';
import type { ResolvePolicy, StopSection } from './policy-source.ts';
import { signalEvent, vetoEvent, whyStopped } from './sentences.ts';
import { dormantAtOf, unusedOf } from './unused.ts';

/** A workspace that is due stops once the next sweep has asked its agent, which reports again then. */
const sweepWithinMs = 7_000;
/** Moments that were computed from two reports differ by so much without a change. */
const sameMomentMs = 1_000;
/** Reports without news are only recorded when a decision may depend on them. */
const recordWithinMs = 2 * 60_000;
/** Until this long before a stop, an agent need not be told again of what it knows. By then its clock may be off by a second. */
const repeatWithinMs = 10 * 60_000;

export interface IdleDeps {
  database: Database;
  bus: Bus;
  now: () => Date;
  stopSection: (versionId: string) => Promise<StopSection>;
  bounds: () => Promise<CleanupPolicy>;
  /** When the bounds were changed last. Unix time in ms. */
  boundsChangedAt: () => Promise<number>;
  resolve: ResolvePolicy;
}

/** Reads what the policy of a workspace is and what it decides now. */
export async function evaluateRow(deps: IdleDeps, row: ActivityRow, at: number) {
  const section = await deps.stopSection(row.templateVersionId);
  const { policy, effective } = deps.resolve(
    section.idle,
    { choices: row.choices, by: row.choicesBy },
    await deps.bounds(),
  );
  const maxRunNotBefore = (await deps.boundsChangedAt()) + longestWarningMs;
  const evaluated = evaluate({ ...policy, maxRunNotBefore }, row, dormantAtOf(unusedOf(row, effective)), at);
  return { evaluated, effective, shutdown: section.shutdown };
}

/** The policy of a workspace without the choices of its owner. */
export async function defaultPolicy(deps: IdleDeps, row: ActivityRow): Promise<EffectiveIdlePolicy> {
  const { idle } = await deps.stopSection(row.templateVersionId);
  return deps.resolve(idle, { choices: {}, by: null }, await deps.bounds()).effective;
}

export function warningsFor({ stopAfterSeconds }: EffectiveIdlePolicy, cause: StopCause | null): number[] {
  return warningsOf(cause, stopAfterSeconds === null ? null : stopAfterSeconds * 1000);
}

/** Differs if anything in the reply does but the time that has passed. */
function revisionOf({ cause, warnBeforeMs, shutdown }: IdleReply, stopsAt: number | null): string {
  const text = JSON.stringify([stopsAt, cause, warnBeforeMs, shutdown?.id]);
  return createHash('sha256').update(text).digest('base64url').slice(0, 6);
}

/** The columns that follow from a decision, if they differ from the stored ones. */
export function decisionChange(row: ActivityRow, { stored, kind }: Evaluated): ActivityChange {
  const { decision } = row;
  const moved = Math.abs((stored.stopsAt ?? 0) - (row.stopsAt ?? 0)) > sameMomentMs;
  const isSame =
    decision !== null &&
    !moved &&
    decision.cause === stored.cause &&
    decision.because.kind === stored.because.kind &&
    Math.abs(Date.parse(decision.because.at) - Date.parse(stored.because.at)) < sameMomentMs;
  return {
    ...(!isSame && { decision: stored, stopsAt: stored.stopsAt }),
    // A later stop is warned of again.
    ...(moved && { warnedMs: null }),
    ...(kind === 'awake' && row.held && { held: false }),
  };
}

/** Takes what agents report of activity, and answers when the workspace stops. */
export function makeActivityReports(deps: IdleDeps) {
  const { database, bus, now } = deps;

  const ofAgent = (actor: AgentActor) =>
    sql`WHERE w.id = ${actor.workspaceId} AND w.agent_build_id = ${actor.buildId}`;

  /** Adds a report to the row. The signals of another build's agent are void. */
  function apply(row: ActivityRow, buildId: string, report: AgentActivity, at: number) {
    const known =
      row.buildId === buildId ? row : { signals: {}, agentStartedAt: null, personAt: row.personAt };
    const merged = mergeReport(known, report, at);
    const change = {
      buildId,
      agentStartedAt: merged.agentStartedAt,
      runStartedAt: row.buildId === buildId ? row.runStartedAt : merged.agentStartedAt,
      signals: merged.signals,
      personAt: merged.personAt,
      reportedAt: at,
      // What was decided about an earlier run says nothing about this one.
      ...(row.buildId !== buildId && { pendingStop: null, held: false, warnedMs: null }),
    };
    const next: ActivityRow = { ...row, ...change };
    const events: NewEvent[] = merged.ended.map((stretch) => signalEvent(row.workspaceId, stretch));
    return { next, change, events, isNew: merged.isNew || row.buildId !== buildId };
  }

  function requestOf(
    row: ActivityRow,
    shutdown: StopSection['shutdown'],
    at: number,
  ): ShutdownRequest | null {
    const { pendingStop } = row;
    if (!pendingStop || pendingStop.ready) return null;
    return {
      id: pendingStop.id,
      cause: pendingStop.cause,
      // Work does not keep a workspace that no person uses. What a person did meanwhile is in the answer.
      idleSinceAgeMs: pendingStop.cause === 'dormant' ? null : at - pendingStop.idleSince,
      script: shutdown?.script ?? null,
      timeoutMs: shutdown?.timeoutMs ?? 0,
    };
  }

  return {
    /**
     * Records a report. Null: this agent's build is no longer the workspace's, or it has to report everything first. A null `idle`:
     * as the agent knows. `cancelsStop`: the activity came after the stop was requested, and the caller cancels it.
     */
    async record(
      actor: AgentActor,
      report: AgentActivity | NoActivity,
    ): Promise<{ idle: IdleReply | null; cancelsStop: boolean } | null> {
      const at = now().getTime();
      const [row] = await readActivity(database.db, ofAgent(actor));
      if (!row) return null;
      const known = 'same' in report ? report.same : null;
      if (known !== null && (row.buildId !== actor.buildId || row.agentStartedAt === null)) return null;
      const activity = 'same' in report ? { agentAgeMs: at - row.agentStartedAt!, signals: [] } : report;
      const { next, change, events, isNew } = apply(row, actor.buildId, activity, at);
      const { evaluated, effective, shutdown } = await evaluateRow(deps, next, at);
      const decided = decisionChange(row, evaluated);
      const vetoed = evaluated.kind === 'awake' ? next.pendingStop : null;
      if (vetoed) {
        decided.pendingStop = null;
        next.pendingStop = null;
        events.push(vetoEvent(row, vetoed.cause, evaluated.stored.because, at));
      }
      const { stopsAt, cause } = evaluated.stored;
      const isNear = stopsAt !== null && stopsAt - at < recordWithinMs;
      if (isNew || isNear || Object.keys(decided).length > 0)
        await database.db.transaction(async (tx) => {
          await writeActivity(tx, row.workspaceId, { ...change, ...decided });
          await insertEvents(tx, events);
        });
      const reply = {
        stopsInMs: stopsAt === null ? null : Math.max(stopsAt - at, row.held ? 0 : sweepWithinMs),
        cause,
        warnBeforeMs: warningsFor(effective, cause),
        extendable: isPostponable(cause),
        shutdown: requestOf(next, shutdown, at),
      };
      const revision = revisionOf(reply, stopsAt);
      const isKnown = known === revision && (stopsAt === null || stopsAt - at > repeatWithinMs);
      return { idle: isKnown ? null : { ...reply, revision }, cancelsStop: vetoed?.ready === true };
    },

    /** The stop that the workspace has to prepare for, if there is one. */
    async pendingShutdown(actor: AgentActor): Promise<ShutdownRequest | null> {
      const [row] = await readActivity(database.db, ofAgent(actor));
      if (!row?.pendingStop) return null;
      const { shutdown } = await deps.stopSection(row.templateVersionId);
      return requestOf(row, shutdown, now().getTime());
    },

    /**
     * Records how the agent answered a request, in the caller's transaction. `stop`: nothing has happened until this moment, and
     * the caller requests the stop. `cancel`: activity vetoed a stop that was already requested. Null: no such request.
     */
    async answer(
      tx: Queryable,
      actor: AgentActor,
      body: { id: string; state: 'vetoed' | 'ready'; activity: AgentActivity },
    ): Promise<
      | { kind: 'stop'; cause: StopCause; row: ActivityRow; reason: string }
      | { kind: 'cancel' | 'vetoed'; row: ActivityRow }
      | null
    > {
      const at = now().getTime();
      await lockActivity(tx, [actor.workspaceId]);
      const [row] = await readActivity(tx, ofAgent(actor));
      const pending = row?.pendingStop;
      if (!row || !pending || pending.id !== body.id) return null;
      const { next, change, events } = apply(row, actor.buildId, body.activity, at);
      const { evaluated } = await evaluateRow(deps, next, at);
      const agreed = body.state === 'ready' && evaluated.kind === 'stop';
      const why = whyStopped(evaluated.stored.because, pending.cause, at);
      await writeActivity(tx, row.workspaceId, {
        ...change,
        ...decisionChange(row, evaluated),
        held: false,
        pendingStop: agreed ? { ...pending, ready: true } : null,
      });
      await insertEvents(tx, [
        ...events,
        agreed
          ? {
              workspaceId: row.workspaceId,
              at,
              kind: 'stop-decided',
              cause: pending.cause,
              ...(pending.releasedBy !== undefined && { by: pending.releasedBy }),
              text: `will be stopped ${why}`,
            }
          : vetoEvent(row, pending.cause, evaluated.stored.because, at),
      ]);
      bus.publish({ workspaceId: row.workspaceId });
      if (agreed) return { kind: 'stop', cause: pending.cause, row: next, reason: `stopped ${why}` };
      return { kind: pending.ready ? 'cancel' : 'vetoed', row: next };
    },
  };
}

export type ActivityReports = ReturnType<typeof makeActivityReports>;
