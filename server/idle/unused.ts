import type { EffectiveIdlePolicy } from '@cde/api/activity.ts';
import { dayMs } from '@cde/api/durations.ts';
import type { ActivityRow } from './activity-store.ts';

/**
 * What decides when a workspace that no person uses becomes dormant, is archived and is deleted. All days count from the
 * same moment. Unix times in ms.
 */
export interface Unused {
  /** The last signal of a person, start by a person or creation. Work and schedules do not count. */
  personAt: number;
  /** The end of its never-stop or its last lease. */
  keptUntil: number;
  /** Null: never. */
  dormantAfterDays: number | null;
  archiveAfterDays: number | null;
  deleteAfterDays: number | null;
}

export function unusedOf(
  row: Pick<ActivityRow, 'workspaceId' | 'personAt' | 'leases'>,
  policy: Pick<
    EffectiveIdlePolicy,
    'dormantAfterDays' | 'archiveAfterDays' | 'deleteAfterDays' | 'neverStop'
  >,
): Unused {
  const { dormantAfterDays, archiveAfterDays, deleteAfterDays, neverStop } = policy;
  return {
    personAt: Math.max(row.personAt ?? 0, createdAtOf(row.workspaceId)),
    keptUntil: Math.max(
      neverStop ? Date.parse(neverStop.until) : 0,
      ...row.leases.map(({ expiresAt }) => expiresAt),
    ),
    dormantAfterDays,
    archiveAfterDays,
    deleteAfterDays,
  };
}

/** Ids are UUIDv7: their first 48 bits are the Unix time in ms. */
const createdAtOf = (id: string) => Number.parseInt(id.replaceAll('-', '').slice(0, 12), 16);

function dueAt({ personAt, keptUntil }: Unused, days: number | null): number | null {
  return days === null ? null : Math.max(personAt + days * dayMs, keptUntil);
}

/** When its compute and namespace are removed and only its home stays; null: never. */
export const dormantAtOf = (unused: Unused): number | null => dueAt(unused, unused.dormantAfterDays);

export type DeletionDecision =
  | { kind: 'none' }
  /** Say now that it will be deleted `at` this moment. */
  | { kind: 'announce'; at: number }
  | { kind: 'wait'; at: number }
  /** It was announced and is no longer due then. */
  | { kind: 'cancel' }
  | { kind: 'due'; at: number };

/**
 * Decides about a dormant workspace. A deletion is announced first, for a moment that is at least `noticeMs` away, and happens
 * no earlier than announced, whatever becomes of the policy. If the policy or the workspace's use postpone it, the
 * announcement is withdrawn, and made again with a full notice.
 */
export function decideUnused(
  unused: Unused,
  known: { archivedAt: number | null; deletesAt: number | null; noticeMs: number },
  now: number,
): { archives: boolean; deletion: DeletionDecision } {
  const archiveAt = dueAt(unused, unused.archiveAfterDays);
  return {
    archives: known.archivedAt === null && archiveAt !== null && now >= archiveAt,
    deletion: decideDeletion(unused, known, now),
  };
}

function decideDeletion(
  unused: Unused,
  { deletesAt, noticeMs }: { deletesAt: number | null; noticeMs: number },
  now: number,
): DeletionDecision {
  const at = dueAt(unused, unused.deleteAfterDays);
  if (deletesAt !== null) {
    if (at === null || at > deletesAt) return { kind: 'cancel' };
    return { kind: now >= deletesAt ? 'due' : 'wait', at: deletesAt };
  }
  // One that a person keeps stays dormant: with a long notice it would be announced again at once.
  const announcesAt = Math.max(at === null ? 0 : at - noticeMs, dormantAtOf(unused) ?? 0);
  if (at === null || now < announcesAt) return { kind: 'none' };
  return { kind: 'announce', at: Math.max(at, now + noticeMs) };
}
