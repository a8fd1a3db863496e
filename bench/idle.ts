/**
 * Wrong stops and reclaimed idle hours of our idle policy and of three others, over simulated years. Results depend only on the
 * seed. Usage: npm run bench:idle -- [--seed N] [--workspaces N] [--json]
 */
import { parseArgs } from 'node:util';
import { makeYear, type Year } from './idle/days.ts';
import { apiCalls, connections, inputOnly, ours } from './idle/policies.ts';
import { type Policy, simulate } from './idle/simulate.ts';

interface Candidate {
  title: string;
  make: (schedule: Year['schedule']) => Policy;
  /** Our policy learns nothing during an outage. The other policies have no outages, in their favor. */
  suffersOutages?: boolean;
}

const policies: Record<string, Candidate> = {
  cde: { title: 'cde: named signals, 30 minutes', make: (schedule) => ours(schedule), suffersOutages: true },
  connections: { title: "open connections (Coder's rules)", make: connections },
  apiCalls: { title: "API calls, 15 minutes (Daytona's)", make: apiCalls },
  inputOnly: { title: "input only, 30 minutes (Codespaces')", make: inputOnly },
};

export interface PolicyResult {
  wrongStops: number;
  stops: number;
  /** Of the idle hours, as a fraction. */
  reclaimed: number;
  idleHours: number;
}

/** Runs policies through the same years. */
export function run(
  seed: number,
  workspaces: number,
  made: Record<string, Candidate> = policies,
): Record<string, PolicyResult> {
  const sums = Object.fromEntries(
    Object.keys(made).map((name) => [name, { wrongStops: 0, stops: 0, idleMs: 0, reclaimedMs: 0 }]),
  );
  for (let index = 0; index < workspaces; index += 1) {
    const year = makeYear(seed, index);
    for (const [name, { make, suffersOutages }] of Object.entries(made)) {
      const result = simulate(suffersOutages ? year : { ...year, outages: [] }, make(year.schedule));
      const sum = sums[name]!;
      for (const key of ['wrongStops', 'stops', 'idleMs', 'reclaimedMs'] as const) sum[key] += result[key];
    }
  }
  return Object.fromEntries(
    Object.entries(sums).map(([name, { wrongStops, stops, idleMs, reclaimedMs }]) => [
      name,
      { wrongStops, stops, reclaimed: reclaimedMs / idleMs, idleHours: Math.round(idleMs / 3_600_000) },
    ]),
  );
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      seed: { type: 'string', default: '1' },
      workspaces: { type: 'string', default: '10000' },
      json: { type: 'boolean' },
    },
  });
  const seed = Number(values.seed);
  const results = run(seed, Number(values.workspaces));
  if (values.json) process.stdout.write(`${JSON.stringify({ seed, policies: results })}\n`);
  else {
    process.stdout.write(`seed ${seed}, ${values.workspaces} workspaces, one year\n`);
    for (const [name, { wrongStops, stops, reclaimed }] of Object.entries(results))
      process.stdout.write(
        `${policies[name]!.title.padEnd(38)} wrong stops ${String(wrongStops).padStart(9)} of ${String(stops).padStart(9)}   reclaimed ${(100 * reclaimed).toFixed(1).padStart(5)} %\n`,
      );
  }
}
