import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { expect } from 'vitest';
import type { ProviderState, StepContext, StepResult } from '../provider.ts';

export type Finished<Done> = Exclude<StepResult<Done>, { kind: 'pending' }>;
export type Step<Done> = (state: ProviderState, context: StepContext) => Promise<StepResult<Done>>;

/** Longer than any provider needs for one transition, also with slow images on a busy machine. */
const maxSteps = 5_000;
/** A step that is woken early must work too, so the suite does not wait longer than this. */
const maxDelayMs = 250;

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    Object.freeze(value);
    for (const item of Object.values(value)) deepFreeze(item);
  }
  return value;
}

/** The state as the next step gets it: through JSON, as from the database, and frozen, so that changing it throws. */
export function stored(state: ProviderState): ProviderState {
  const copy = JSON.parse(JSON.stringify(state)) as ProviderState;
  expect(copy, 'a state must survive JSON').toEqual(state);
  return deepFreeze(copy);
}

/** One step, whose result is checked against the contract. */
export async function once<Done>(
  step: Step<Done>,
  state: ProviderState,
  log: string[] = [],
): Promise<StepResult<Done>> {
  const result = await step(stored(state), { log: (text) => void log.push(text) });
  if (result.kind === 'pending') expect(result.retryAfterMs).toBeGreaterThanOrEqual(0);
  if (result.kind === 'failed') {
    expect(result.error.code).toMatch(/^[a-z]+(-[a-z]+)*$/);
    expect(result.error.message).toMatch(/^\p{Lu}.*\.$/su);
    expect(['user', 'system']).toContain(result.error.fault);
  }
  return result;
}

/** Repeats a step until it is done or has failed, as the server does. */
export async function drive<Done>(
  step: Step<Done>,
  state: ProviderState = {},
  log: string[] = [],
): Promise<Finished<Done>> {
  let current = state;
  for (let count = 0; count < maxSteps; count++) {
    const result = await once(step, current, log);
    if (result.kind !== 'pending') return result as Finished<Done>;
    current = result.state;
    await delay(Math.min(result.retryAfterMs, maxDelayMs));
  }
  throw new Error(`A transition did not finish within ${maxSteps} steps. Its log:\n${log.join('\n')}`);
}

/** Like `drive`, for a step that must not fail. */
export async function finish<Done>(step: Step<Done>, state: ProviderState = {}) {
  const log: string[] = [];
  const result = await drive(step, state, log);
  if (result.kind !== 'done')
    throw new Error(`${JSON.stringify((result as { error?: unknown }).error)}\n${log.join('\n')}`);
  return result as Extract<StepResult<Done>, { kind: 'done' }>;
}

/**
 * Takes steps until `count` of them have changed the state, and loses the result of the last one: what a server that was
 * killed leaves behind. A step that only waits changes nothing, so losing its result makes no difference. Returns the last
 * state that was recorded, and whether the transition had finished before.
 */
export async function interrupt<Done>(step: Step<Done>, state: ProviderState, count: number) {
  let recorded = state;
  let changes = 0;
  for (let taken = 0; taken < maxSteps; taken++) {
    const result = await once(step, recorded);
    if (result.kind !== 'pending') return { recorded, wasLast: true };
    if (!isDeepStrictEqual(stored(result.state), stored(recorded)) && ++changes === count)
      return { recorded, wasLast: false };
    recorded = result.state;
    await delay(Math.min(result.retryAfterMs, maxDelayMs));
  }
  throw new Error(`A transition did not finish within ${maxSteps} steps.`);
}
