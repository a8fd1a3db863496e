/**
 * From a start to the first output of a command inside, for each provider that runs on machines, beside its engine's own
 * command line doing the same, in alternating rounds. Prints medians, the difference, and the steps and engine calls per
 * start. Images are on the engine already. Results: bench/machines.md.
 *
 * Usage: node --import ./server/database/drizzle-imports.ts bench/machines.ts [PROVIDER…] [--rounds N] [--at-once N] [--json]
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import type { Provider, ProviderState, StepResult, WorkspaceSpec } from '@cde/server/providers/provider.ts';
import { launchOf } from '../tests/machines/docker-scene.ts';
import { median } from './harness.ts';
import { docker, podman } from './machines/docker.ts';
import type { Entry } from './machines/entry.ts';
import { incus } from './machines/incus.ts';

const entries: Record<string, () => Promise<Entry>> = { docker, podman, incus };

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '9' },
    'at-once': { type: 'string', default: '20' },
    json: { type: 'boolean', default: false },
  },
});

const timed = async (work: () => Promise<unknown>) => {
  const began = performance.now();
  await work();
  return performance.now() - began;
};

/** Like the reconciler: a step, then the next one when something has changed or its time has come. */
async function drive(
  provider: Provider,
  workspaceId: string,
  state: ProviderState,
  step: (state: ProviderState) => Promise<StepResult>,
): Promise<{ state: ProviderState; steps: number }> {
  let wake = () => {};
  provider.onChange((id) => id === workspaceId && wake());
  for (let steps = 1; ; steps++) {
    const woken = new Promise<void>((resolve) => {
      wake = resolve;
    });
    const result = await step(state);
    if (result.kind === 'failed') throw new Error(JSON.stringify(result.error));
    if (result.kind === 'done') return { state: result.state, steps };
    state = result.state;
    const timer = new AbortController();
    await Promise.race([
      woken,
      delay(result.retryAfterMs, undefined, { signal: timer.signal }).catch(() => {}),
    ]);
    timer.abort();
  }
}

const quiet = { log() {} };
const start = (provider: Provider, spec: WorkspaceSpec, state: ProviderState = {}) => {
  const launch = launchOf(randomUUID());
  return drive(provider, spec.workspaceId, state, (now) => provider.start(spec, launch, now, quiet));
};
const stop = (provider: Provider, { workspaceId }: WorkspaceSpec, state: ProviderState) =>
  drive(provider, workspaceId, state, (now) => provider.stop(workspaceId, now, quiet));
const remove = (provider: Provider, { workspaceId }: WorkspaceSpec, state: ProviderState) =>
  drive(provider, workspaceId, state, (now) => provider.remove(workspaceId, now, 'discard', quiet));

async function measure(entry: Entry, rounds: number, atOnce: number) {
  const { provider, byHand } = entry;
  const times: Record<string, { cde: number[]; byHand: number[] }> = {};
  const add = (what: string, side: 'cde' | 'byHand', took: number) => {
    times[what] ??= { cde: [], byHand: [] };
    times[what][side].push(took);
  };
  const steps: number[] = [];
  const calls: number[] = [];
  for (let round = 0; round <= rounds; round++) {
    // The first warms up: it puts the agent on the engine.
    const record = round === 0 ? () => {} : add;
    const spec = entry.makeSpec();
    const callsBefore = entry.calls();
    let state: ProviderState = {};
    record(
      'start',
      'cde',
      await timed(async () => {
        const started = await start(provider, spec);
        await entry.runInside(spec);
        state = started.state;
        if (round > 0) steps.push(started.steps);
      }),
    );
    if (round > 0) calls.push(entry.calls() - callsBefore);
    record('stop', 'cde', await timed(async () => ({ state } = await stop(provider, spec, state))));
    record(
      'start again',
      'cde',
      await timed(async () => {
        ({ state } = await start(provider, spec, state));
        await entry.runInside(spec);
      }),
    );
    await remove(provider, spec, state);

    const name = `bench-${randomUUID()}`;
    record('start', 'byHand', await timed(() => byHand.start(name)));
    record('stop', 'byHand', await timed(() => byHand.stop(name)));
    record('start again', 'byHand', await timed(() => byHand.startAgain(name)));
    await byHand.remove(name);
  }

  const many = `${atOnce} at once`;
  const specs = Array.from({ length: atOnce }, () => entry.makeSpec());
  const states = new Map<WorkspaceSpec, ProviderState>();
  add(
    many,
    'cde',
    await timed(() =>
      Promise.all(
        specs.map(async (spec) => {
          states.set(spec, (await start(provider, spec)).state);
          await entry.runInside(spec);
        }),
      ),
    ),
  );
  for (const spec of specs) await remove(provider, spec, states.get(spec)!);
  const names = specs.map(() => `bench-${randomUUID()}`);
  add(many, 'byHand', await timed(() => Promise.all(names.map((name) => byHand.start(name)))));
  for (const name of names) await byHand.remove(name);
  return {
    steps: median(steps),
    calls: median(calls),
    rows: Object.entries(times).map(([what, took]) => {
      const [cde, hand] = [median(took.cde), median(took.byHand)];
      return { what, cdeMs: cde, byHandMs: hand, ratio: cde / hand, moreMs: cde - hand };
    }),
  };
}

const results: Record<string, Awaited<ReturnType<typeof measure>>> = {};
for (const name of positionals.length > 0 ? positionals : Object.keys(entries)) {
  const makeEntry = entries[name];
  if (!makeEntry) throw new Error(`There is no provider ${name}: ${Object.keys(entries).join(', ')}`);
  const entry = await makeEntry();
  try {
    results[name] = await measure(entry, Number(values.rounds), Number(values['at-once']));
  } finally {
    await entry.close();
  }
}
if (values.json) process.stdout.write(`${JSON.stringify(results, null, 2)}\n`);
else
  for (const [name, { steps, calls, rows }] of Object.entries(results)) {
    console.log(`${name}: ${steps} steps and ${calls} engine calls per start`);
    console.table(
      rows.map(({ what, cdeMs, byHandMs, ratio, moreMs }) => ({
        what,
        'cde, ms': Math.round(cdeMs),
        'by hand, ms': Math.round(byHandMs),
        ratio: ratio.toFixed(2),
        'more, ms': Math.round(moreMs),
      })),
    );
  }
