import type { DailySchedule, Signal } from '@cde/api/activity.ts';
import { weekdays } from '@cde/api/idle-values.ts';

/**
 * A year in the life of one workspace: what happens in it (`busy`, the truth) and what can be observed from outside
 * (`observed`). It knows the names of the signals and nothing about any policy.
 */
export interface Year {
  from: number;
  to: number;
  /** When somebody uses the workspace or something runs in it that must not be stopped. Sorted, without overlaps. */
  busy: readonly Span[];
  /** When the developer is there. A stopped workspace is started again at the next such moment. Sorted. */
  presences: readonly Span[];
  /** Sorted by `from`. What a kind of observation shows during its span recurs at least every five minutes. */
  observed: readonly Observed[];
  leases: readonly { from: number; to: number }[];
  /** The daily start and stop that the developer has set. They often come later, and often stay longer. */
  schedule: DailySchedule | null;
  /** The agent, a satellite or the server is down, so that nothing is reported. Sorted, without overlaps. */
  outages: readonly Span[];
}
export interface Span {
  from: number;
  to: number;
}
/** `connection`: an open session, used or not. `tool-call`: an AI agent runs a command through an API. */
export type Kind = Signal | 'connection' | 'tool-call';
export interface Observed extends Span {
  kind: Kind;
}

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;
const firstDay = Date.UTC(2026, 0, 1);
const days = 365;

/** Zones with and without daylight saving time, in both hemispheres. */
const zones = [
  'America/Los_Angeles',
  'America/New_York',
  'America/Sao_Paulo',
  'Europe/London',
  'Europe/Berlin',
  'Asia/Kolkata',
  'Asia/Tokyo',
  'Australia/Sydney',
];

/** Local midnight of each day, counted back from noon: clocks change at night. */
function midnightsIn(timeZone: string): number[] {
  const format = new Intl.DateTimeFormat('en-US', { timeZone, timeZoneName: 'longOffset' });
  return Array.from({ length: days }, (_, index) => {
    const noon = firstDay + index * day + 12 * hour;
    const offset = format.formatToParts(noon).find(({ type }) => type === 'timeZoneName')!.value;
    const [, sign, hours, minutes] = /GMT(?:([+-])(\d\d):(\d\d))?/.exec(offset)!;
    const ms = sign ? (Number(hours) * 60 + Number(minutes)) * minute * (sign === '-' ? -1 : 1) : 0;
    return firstDay + index * day - ms;
  });
}
const midnights = new Map(zones.map((zone) => [zone, midnightsIn(zone)]));

/** A developer's habits, as shares of days or sessions. */
interface Habits {
  /** Weekdays on which they work, Sunday is 0. */
  weekdays: readonly number[];
  startHour: number;
  hours: number;
  /** How often the editor stays attached after they leave. */
  staysAttached: number;
  /** How often something keeps running after they leave: a build, tests, a training. */
  nightJobs: number;
  /** Sessions of an AI agent per day. */
  agentSessions: number;
  /** How often they only look at their program through a shared port. */
  visitsPort: number;
  /** They leave for good after so many days. */
  leavesAfter: number;
}

const office: Habits = {
  weekdays: [1, 2, 3, 4, 5],
  startHour: 9,
  hours: 8.5,
  staysAttached: 0.3,
  nightJobs: 0.15,
  agentSessions: 0.3,
  visitsPort: 0.2,
  leavesAfter: days,
};
const profiles: readonly { share: number; habits: Habits }[] = [
  { share: 0.5, habits: office },
  { share: 0.1, habits: { ...office, weekdays: [1, 2, 4], hours: 5 } },
  { share: 0.1, habits: { ...office, startHour: 20, hours: 6, weekdays: [0, 1, 3, 5, 6] } },
  { share: 0.1, habits: { ...office, agentSessions: 2.5, nightJobs: 0.3 } },
  { share: 0.1, habits: { ...office, nightJobs: 0.7, staysAttached: 0.6 } },
  { share: 0.1, habits: { ...office, leavesAfter: 40 } },
];

/** A small, fast generator with a good distribution (mulberry32), because results must not depend on the machine. */
function makeRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The year of workspace number `index`. The same seed and index give the same year. */
export function makeYear(seed: number, index: number): Year {
  const random = makeRandom(Math.imul(seed, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b));
  const between = (low: number, high: number) => low + random() * (high - low);
  const chance = (share: number) => random() < share;
  const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)]!;

  const busy: Span[] = [];
  const presences: Span[] = [];
  const observed: Observed[] = [];
  const leases: Span[] = [];
  const see = (kind: Kind, from: number, to: number) => observed.push({ kind, from, to });

  /** Works until `to`: stretches of input, and pauses to read, think, talk or fetch a coffee. */
  function work(from: number, to: number, input: Signal): void {
    busy.push({ from, to });
    presences.push({ from, to });
    let now = from;
    while (now < to) {
      const end = Math.min(to, now + between(2, 40) * minute);
      see(input === 'port-visit' || !chance(0.3) ? input : 'terminal-input', now, end);
      // A build in between, watched or not.
      if (chance(0.25)) {
        const done = end + between(0.5, 25) * minute;
        see(pick(['process-cpu', 'build', 'disk-throughput'] as const), end - minute, done);
        busy.push({ from: end - minute, to: done });
      }
      const pause = chance(0.15) ? between(10, 27) : between(0.5, 10);
      // The block ends with input: it is over when they leave.
      now = end + pause * minute > to - minute ? Math.max(end, to) : end + pause * minute;
      if (now >= to && end < to) see(input, to - minute, to);
    }
  }

  /** Something long that nobody watches, in phases, with waits for other systems in between. Returns its end. */
  function runJob(from: number, length: number): number {
    let now = from;
    const end = from + length;
    while (now < end) {
      const phase = Math.min(end, now + between(5, 90) * minute);
      see(
        pick(['process-cpu', 'process-cpu', 'network-throughput', 'disk-throughput', 'sync'] as const),
        now,
        phase,
      );
      now = phase + between(0.5, 20) * minute;
    }
    see('command-output', end - minute, end);
    busy.push({ from, to: end });
    return end;
  }

  /** An AI agent: thinks without a trace, then does something. With a lease it may think for longer. */
  function runAgent(from: number, length: number): number {
    const end = from + length;
    const holdsLease = chance(0.3);
    if (holdsLease) leases.push({ from, to: end });
    let now = from;
    while (now < end) {
      const action = Math.min(end, now + between(0.5, 10) * minute);
      see('tool-call', now, action);
      see(pick(['command-output', 'process-cpu', 'network-throughput'] as const), now, action);
      now = action + (holdsLease ? between(1, 110) : between(1, 27)) * minute;
    }
    see('command-output', end - minute, end);
    busy.push({ from, to: end });
    return end;
  }

  const habits = pickProfile(random());
  const timeZone = pick(zones);
  const local = midnights.get(timeZone)!;
  let leftOpenSince: number | null = null;
  let offUntil = 0;
  const lastDay = Math.min(days, habits.leavesAfter);
  for (let index = Math.floor(between(0, 20)); index < lastDay; index += 1) {
    const midnight = local[index]!;
    const weekday = (index + 4) % 7; // 2026 begins on a Thursday.
    if (index < offUntil || !habits.weekdays.includes(weekday)) continue;
    if (chance(0.02)) {
      offUntil = index + Math.floor(between(1, 12)); // Ill, or on holiday.
      continue;
    }
    let now = midnight + (habits.startHour + between(-0.7, 1)) * hour;
    const leave = now + (habits.hours + between(-1.5, 1.5)) * hour;
    if (leftOpenSince !== null) see('connection', leftOpenSince, now);
    const arrived = now;
    let lastEnd = now;
    while (now < leave - 20 * minute) {
      const end = Math.min(leave, now + between(25, 150) * minute);
      work(now, end, chance(habits.visitsPort) ? 'port-visit' : 'editor-input');
      if (chance(habits.agentSessions / 4))
        lastEnd = Math.max(lastEnd, runAgent(end - minute, between(0.5, 5) * hour));
      // A meeting or lunch.
      now = end + between(31, 100) * minute;
      lastEnd = Math.max(lastEnd, end);
    }
    const left = Math.min(Math.max(leave, arrived + hour), now);
    if (chance(habits.nightJobs)) runJob(lastEnd - minute, between(0.5, 9) * hour);
    const isLeftOpen = chance(habits.staysAttached);
    leftOpenSince = isLeftOpen ? left : null;
    seeConnections(arrived, left);
  }
  if (leftOpenSince !== null && chance(0.3)) see('connection', leftOpenSince, firstDay + days * day);

  /** The session of a day, cut now and then for some minutes by a train's tunnel or a laptop's lid. */
  function seeConnections(from: number, to: number): void {
    let now = from;
    while (now < to) {
      const end = Math.min(to, now + between(1, 10) * hour);
      see('connection', now, end);
      now = end + between(1, 12) * minute;
    }
  }

  const outages: Span[] = [];
  for (let now = firstDay + between(0, 30) * day; now < firstDay + days * day; now += between(10, 60) * day)
    outages.push({ from: now, to: now + between(0.2, 4) * hour });

  const sorted = <T extends Span>(spans: T[]) => spans.sort((a, b) => a.from - b.from);
  return {
    from: presences[0]?.from ?? firstDay,
    to: firstDay + (days + 1) * day,
    busy: merge(sorted(busy)),
    presences: merge(sorted(presences)),
    observed: sorted(observed),
    leases: sorted(leases),
    schedule: makeSchedule(
      makeRandom(Math.imul(seed, 0x9e3779b1) ^ Math.imul(index + 1, 0xc2b2ae35)),
      habits,
      timeZone,
    ),
    outages,
  };
}

/** One in ten has a schedule: from half an hour before they usually come until they usually leave. */
function makeSchedule(random: () => number, habits: Habits, timeZone: string): DailySchedule | null {
  if (random() >= 0.1) return null;
  const at = (hours: number) =>
    `${String(Math.floor(hours) % 24).padStart(2, '0')}:${hours % 1 < 0.5 ? '00' : '30'}`;
  const days = weekdays.filter((_, index) => habits.weekdays.includes((index + 1) % 7));
  const start = random() < 0.6 ? { start: at(habits.startHour - 0.5) } : {};
  return { ...start, stop: at(habits.startHour + habits.hours), days, timeZone };
}

function pickProfile(value: number): Habits {
  let rest = value;
  for (const { share, habits } of profiles) {
    rest -= share;
    if (rest < 0) return habits;
  }
  return office;
}

/** Joins spans that overlap. `spans` is sorted. */
function merge(spans: readonly Span[]): Span[] {
  const merged: Span[] = [];
  for (const { from, to } of spans) {
    const last = merged.at(-1);
    if (last && from <= last.to) last.to = Math.max(last.to, to);
    else merged.push({ from, to });
  }
  return merged;
}
