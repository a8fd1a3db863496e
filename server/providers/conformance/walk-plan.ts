import fc from 'fast-check';

/** What a developer or the server wants. What does not apply at the moment becomes the nearest that does. */
const wishes = [
  'start',
  'start',
  'update',
  'stop',
  'stop',
  'restore',
  'remove',
  'discard',
  'dormant',
  'observe',
  'purge',
] as const;
export type Wish = (typeof wishes)[number];

/** What goes wrong meanwhile. */
const faults = [
  'none',
  'none',
  /** The server is killed: the result of one step is lost, and another replica goes on. */
  'crash',
  /** The server is killed in the middle of a step, after some calls to the platform. */
  'crash-within-step',
  /** Two replicas take the same step at once. */
  'second-replica',
  /** The same replica takes the same step twice. */
  'repeat',
  /** The platform does not answer for a few steps. */
  'cut',
  'slow',
  /** The platform answers every call with an error for a few steps. */
  'error',
  /** The agent is killed. */
  'kill-agent',
  /** Someone removes the compute without cde. */
  'remove-compute',
] as const;
export type Fault = (typeof faults)[number];

export interface Operation {
  slot: number;
  wish: Wish;
  fault: Fault;
  /** The step, or the call within it, that the fault happens at. */
  at: number;
}

/** How many workspaces exist at once at most. */
export const slots = 6;

/** The operations of a walk; the same for the same seed. */
export const planWalk = (seed: number, count: number): Operation[] =>
  fc.sample(
    fc.record({
      slot: fc.nat(slots - 1),
      wish: fc.constantFrom(...wishes),
      fault: fc.constantFrom(...faults),
      at: fc.integer({ min: 1, max: 8 }),
    }),
    { seed, numRuns: count },
  );
