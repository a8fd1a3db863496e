import { type IncidentKind, windowMs } from '@cde/api/diagnosis-values.ts';
import type { Recording, SessionEvent, SessionWindow, Span } from './evidence.ts';

/** A time in which a person noticed something, before anything is known of its cause. */
export interface Spell {
  kind: IncidentKind;
  from: number;
  /** Null: it continues. */
  to: number | null;
  path: SessionWindow['path'];
  /** Of a drop or an end: the code it was noticed by. */
  reason: string | null;
  /** Of a drop: where the session went on. */
  resumedOn: SessionWindow['path'];
  /** Of a stall: how often there was no answer, and for how long at most. */
  stalls?: { count: number; longestMs: number };
  /** Of a slow spell: round trips to the agent, and without it. */
  rtt?: { usualMs: number; slowMs: number };
}

/** The spell as a span; one that continues ends where knowledge ends. */
export const spanOfSpell = ({ from, to }: Spell, { knownUntil }: Recording): Span => ({
  from,
  to: to ?? Math.max(from, knownUntil),
});

/** Shorter gaps look like ordinary jitter to a person. */
const noticeableGapMs = 1_000;

/** Two windows. */
const longSlowMs = 1.5 * windowMs;

/** Finds everything noticeable in a session, oldest first. */
export function findSpells(session: Recording): Spell[] {
  const drops = findDrops(session.events);
  const covered = (at: number) => drops.some(({ from, to }) => at >= from && (to === null || at <= to));
  const stalls = findStalls(session, drops).filter(({ from, to }) => !covered(from) && !covered(to!));
  // What an interruption does to the windows around it is part of it.
  const undisturbed = session.windows.filter(
    ({ at, ms }) => !drops.some(({ from, to }) => from <= at + ms && (to ?? Number.POSITIVE_INFINITY) >= at),
  );
  const slow = findSlow({ ...session, windows: undisturbed }, session.windows);
  // A stall in a long slow spell is part of it; else the slow window is what the stall did to it.
  const meet = (one: Spell, other: Spell) => one.from <= other.to! && other.from <= one.to!;
  const isLonger = (one: Spell, stall: Spell) =>
    one.to! - one.from >= longSlowMs && one.to! - one.from > stall.to! - stall.from;
  const told = [
    ...stalls.filter((stall) => !slow.some((one) => meet(one, stall) && isLonger(one, stall))),
    ...slow.filter((one) => !stalls.some((stall) => meet(one, stall) && !isLonger(one, stall))),
  ];
  return [...drops, ...told, ...findEnd(session.events)].sort((one, other) => one.from - other.from);
}

function findDrops(events: readonly SessionEvent[]): Spell[] {
  const drops: Spell[] = [];
  for (const [index, event] of events.entries()) {
    if (event.kind !== 'lost') continue;
    const next = events
      .slice(index + 1)
      .find(({ kind }) => kind === 'resumed' || kind === 'ended' || kind === 'lost');
    const from = event.at - event.silentMs;
    const to = next ? next.at : null;
    if (to !== null && to - from < noticeableGapMs) continue;
    // The loss of a session without a resume is told by its end.
    if (next?.kind === 'ended' && next.reason !== null) continue;
    const resumedOn = next?.kind === 'resumed' ? next.path : null;
    drops.push({ kind: 'drop', from, to, path: event.path, reason: event.reason, resumedOn });
  }
  return drops;
}

/** Stalls that follow each other within this time are one. */
const stallsApartMs = 15_000;

/** What was sent during a drop arrives first, and the rest after it. */
const catchUpMs = 5_000;
/** Behind data of the session's own that fills the path, shorter waits are expected. */
const stallInBulkMs = 4_000;

function findStalls({ events, windows }: Recording, drops: readonly Spell[]): Spell[] {
  const found: Spell[] = [];
  /** The path while the session was used; a sleep of a session that nobody used interrupts nothing. */
  const pathAt = (at: number) =>
    windows.find((window) => window.at <= at && window.at + window.ms >= at)?.path ?? null;
  for (const event of events) {
    if (event.kind !== 'stalled' && event.kind !== 'slept') continue;
    const { at, ms } = event;
    const path = event.kind === 'stalled' ? event.path : pathAt(at - ms);
    if (path === null) continue;
    // The drop that follows a sleep tells of it.
    if (event.kind === 'slept' && drops.some(({ from }) => from >= at - ms && from <= at + catchUpMs))
      continue;
    const isInBulk = windows.some(
      (window) => window.bytes > bulkBytes && window.at <= at && at - ms <= window.at + window.ms,
    );
    if (ms < (isInBulk ? stallInBulkMs : noticeableGapMs)) continue;
    if (drops.some(({ to }) => to !== null && at - ms >= to && at - ms <= to + catchUpMs)) continue;
    const last = found.at(-1);
    const isSame = last?.path?.kind === path.kind && last.path.via === path.via;
    const isApart = last && drops.some(({ from }) => from >= last.to! && from <= at);
    if (last && isSame && !isApart && at - ms - last.to! <= stallsApartMs) {
      last.to = at;
      last.stalls!.count++;
      last.stalls!.longestMs = Math.max(last.stalls!.longestMs, ms);
      continue;
    }
    const stalls = { count: 1, longestMs: ms };
    found.push({ kind: 'stall', from: at - ms, to: at, path, reason: null, resumedOn: null, stalls });
  }
  return found;
}

function findEnd(events: readonly SessionEvent[]): Spell[] {
  const end = events.find((event) => event.kind === 'ended' && event.reason !== null);
  if (end?.kind !== 'ended') return [];
  const lost = events.findLast((event) => event.kind === 'lost' && event.at <= end.at);
  const resumed = events.findLast((event) => event.kind === 'resumed' && event.at <= end.at);
  const isLost = lost?.kind === 'lost' && lost.at > (resumed?.at ?? 0);
  const from = isLost ? lost.at - lost.silentMs : end.at;
  const path = isLost ? lost.path : null;
  return [{ kind: 'ended', from, to: end.at, path, reason: end.reason, resumedOn: null }];
}

/** Fewer round trips say nothing about a window. */
const minCount = 3;
/** Noticed when typing: 20 ms more when correcting, and this much for everybody. */
const slowerByMs = 100;
/** Data of the session's own that fills the path: what waits behind it is expected to be late. */
const bulkBytes = 2_000_000;
const slowerInBulkByMs = 600;

function findSlow({ windows }: Recording, all: readonly SessionWindow[]): Spell[] {
  const found: Spell[] = [];
  let last: { window: SessionWindow; spell: Spell } | undefined;
  for (const window of windows) {
    const slow = slowness(window, all);
    if (!slow) continue;
    const to = window.at + window.ms;
    const follows = last && window.at - (last.window.at + last.window.ms) <= window.ms * 1.5;
    if (last && follows) {
      last.spell.to = to;
      last.spell.rtt!.slowMs = Math.max(last.spell.rtt!.slowMs, slow.slowMs);
      last.window = window;
      continue;
    }
    const spell: Spell = {
      ...{ kind: 'slow', from: window.at, to, path: window.path, reason: null, resumedOn: null },
      rtt: slow,
    };
    found.push(spell);
    last = { window, spell };
  }
  return found;
}

function slowness(window: SessionWindow, windows: readonly SessionWindow[]) {
  const { toAgent } = window;
  if (!toAgent || toAgent.count < minCount) return null;
  const usualMs = usual(window, windows, (each) => each.toAgent);
  const limit = window.bytes > bulkBytes ? slowerInBulkByMs : slowerByMs;
  // One late answer in ten seconds is no slow spell: half of them, or the twentieth by a multiple.
  const isSlow =
    toAgent.p50 >= usualMs + limit || (toAgent.count >= 5 && toAgent.p95 >= usualMs * 2 + 2 * limit);
  return isSlow ? { usualMs, slowMs: Math.max(toAgent.p50, toAgent.p95) } : null;
}

/** The ordinary round trip of a leg on the path of this window: the lower quartile of the session's medians. */
export function usual(
  window: Pick<SessionWindow, 'path'>,
  windows: readonly SessionWindow[],
  leg: (window: SessionWindow) => SessionWindow['toAgent'],
): number {
  const medians = windows
    .filter(({ path }) => path?.kind === window.path?.kind && path?.via === window.path?.via)
    .flatMap((each) => leg(each)?.p50 ?? [])
    .sort((one, other) => one - other);
  // A session that was slow from its first window on has nothing to be compared with but what people accept.
  const lowest = medians[Math.floor(medians.length / 4)] ?? 0;
  return medians.length < minUsualCount ? Math.min(lowest, unknownUsualMs) : lowest;
}
/** From fewer windows nobody knows what is usual. */
export const minUsualCount = 3;
const unknownUsualMs = 80;
