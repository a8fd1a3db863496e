const dayMs = 24 * 3600_000;

/** What decides whether a workspace becomes dormant: its compute and namespace are removed, its home stays. Times in Unix ms. */
interface DormancyInput {
  /** Null: never. */
  dormantAfterDays: number | null;
  /** Its last signal of a person, start by a person or creation. Work and schedules do not count. */
  personAt: number;
  neverStopUntil: number | null;
  /** While it runs, what is known of its activity; null while it is stopped. */
  reportedUntil: number | null;
}

export type Dormancy =
  /** Null: never. */
  | { kind: 'in-use'; dormantAt: number | null }
  /** Due as far as is known, but a person may have been there since the last report. */
  | { kind: 'needs-report'; reportedUntil: number }
  | { kind: 'due'; personAt: number };

export function decideDormancy(input: DormancyInput, now: number): Dormancy {
  const { dormantAfterDays, personAt, neverStopUntil, reportedUntil } = input;
  if (dormantAfterDays === null) return { kind: 'in-use', dormantAt: null };
  const dormantAt = Math.max(personAt + dormantAfterDays * dayMs, neverStopUntil ?? 0);
  if (now < dormantAt) return { kind: 'in-use', dormantAt };
  if (reportedUntil !== null && reportedUntil < now) return { kind: 'needs-report', reportedUntil };
  return { kind: 'due', personAt };
}
