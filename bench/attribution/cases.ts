import { type Chance, makeChance } from './chance.ts';

// What is injected, decided by the seed alone. Nothing here knows how the engine decides.

/** One fault, with its severity. `ms` is its length where it has one. */
export type Fault =
  | { cause: 'client-slept'; ms: number; radio: 'off' | 'on'; otherNetwork: boolean }
  | { cause: 'client-overloaded'; ms: number; cpuPercent: number }
  | { cause: 'client-network-changed'; withoutMs: number }
  | { cause: 'client-network-lossy'; ms: number; how: 'loss' | 'delay' | 'jitter' | 'outage'; amount: number }
  | { cause: 'udp-blocked'; ms: number }
  | { cause: 'proxy-interference'; how: 'silent' | 'reset'; lifeMs: number; lives: number }
  | { cause: 'satellite-restarted'; how: 'killed' | 'stopped' | 'crashed'; downMs: number }
  | { cause: 'satellite-overloaded'; ms: number; cpuPercent: number }
  | { cause: 'satellite-agent-network'; ms: number; how: 'loss' | 'delay' | 'outage'; amount: number }
  | { cause: 'node-lost'; downMs: number }
  | { cause: 'agent-restarted' }
  | { cause: 'workspace-cpu-starved'; ms: number; cpuPercent: number }
  | { cause: 'workspace-out-of-memory' }
  | { cause: 'workspace-stopped'; how: 'stop' | 'restart'; by: 'owner' | 'admin' }
  | { cause: 'server-unreachable'; ms: number }
  | { cause: 'ticket-expired' };
export type Cause = Fault['cause'];

export interface Case {
  /** `SEED-NUMBER`. */
  id: string;
  /** `quiet`: nothing is injected. */
  title: Cause | 'quiet';
  /** One or two; two begin within a few seconds. */
  faults: { fault: Fault; afterMs: number }[];
  variation: 'plain' | 'bulk' | 'cpu load' | 'at start' | 'two faults';
  /** Which satellite the session uses: a process of its own, or the server's. */
  satellite: 'own' | 'embedded';
  /** The session may use direct UDP. */
  udp: boolean;
  /** Delays of the links, each way. */
  link: { clientMs: number; satelliteMs: number };
  /** From the first echo to the first fault. */
  beforeMs: number;
  /** For a quiet case. */
  quietMs: number;
}

const seconds = (chance: Chance, min: number, max: number) => Math.round(chance.between(min, max) * 1000);

/** One fault of each cause, with a severity that a person notices. */
const makers: { [C in Cause]: (chance: Chance) => Extract<Fault, { cause: C }> } = {
  'client-slept': (chance) => ({
    cause: 'client-slept',
    ms: seconds(chance, 5, 25),
    radio: chance.pick(['off', 'off', 'on']),
    otherNetwork: chance.next() < 0.25,
  }),
  'client-overloaded': (chance) => ({
    cause: 'client-overloaded',
    ms: seconds(chance, 20, 35),
    cpuPercent: chance.between(1, 2.5),
  }),
  'client-network-changed': (chance) => ({
    cause: 'client-network-changed',
    withoutMs: seconds(chance, 1.5, 8),
  }),
  'client-network-lossy': (chance) => {
    const how = chance.pick(['loss', 'delay', 'jitter', 'outage'] as const);
    const amount = {
      loss: chance.between(0.15, 0.35),
      delay: chance.between(90, 350),
      jitter: chance.between(250, 700),
      outage: 0,
    }[how];
    const ms = how === 'outage' ? seconds(chance, 3, 22) : seconds(chance, 20, 35);
    return { cause: 'client-network-lossy', how, amount, ms };
  },
  'udp-blocked': (chance) => ({ cause: 'udp-blocked', ms: seconds(chance, 25, 40) }),
  'proxy-interference': (chance) => ({
    cause: 'proxy-interference',
    how: chance.pick(['silent', 'reset']),
    lifeMs: seconds(chance, 9, 16),
    lives: chance.whole(4, 5),
  }),
  'satellite-restarted': (chance) => ({
    cause: 'satellite-restarted',
    how: chance.pick(['killed', 'stopped', 'crashed']),
    downMs: seconds(chance, 1.5, 12),
  }),
  'satellite-overloaded': (chance) => ({
    cause: 'satellite-overloaded',
    ms: seconds(chance, 22, 35),
    cpuPercent: chance.between(1, 4),
  }),
  'satellite-agent-network': (chance) => {
    const how = chance.pick(['loss', 'delay', 'outage'] as const);
    const amount = { loss: chance.between(0.15, 0.35), delay: chance.between(90, 350), outage: 0 }[how];
    const ms = how === 'outage' ? seconds(chance, 4, 22) : seconds(chance, 20, 35);
    return { cause: 'satellite-agent-network', how, amount, ms };
  },
  'node-lost': (chance) => ({ cause: 'node-lost', downMs: seconds(chance, 1, 8) }),
  'agent-restarted': () => ({ cause: 'agent-restarted' }),
  'workspace-cpu-starved': (chance) => ({
    cause: 'workspace-cpu-starved',
    ms: seconds(chance, 20, 35),
    cpuPercent: chance.between(1, 2.5),
  }),
  'workspace-out-of-memory': () => ({ cause: 'workspace-out-of-memory' }),
  'workspace-stopped': (chance) => ({
    cause: 'workspace-stopped',
    how: chance.pick(['stop', 'restart']),
    by: chance.pick(['owner', 'admin']),
  }),
  'server-unreachable': (chance) => ({
    cause: 'server-unreachable',
    ms: seconds(chance, 5, 22),
  }),
  'ticket-expired': () => ({ cause: 'ticket-expired' }),
};
export const causes = Object.keys(makers) as Cause[];

/** Faults that leave the session alive, so that a second one is noticeable too. */
const survivable = [
  'client-slept',
  'client-network-changed',
  'client-network-lossy',
  'satellite-agent-network',
  'workspace-cpu-starved',
  'client-overloaded',
] as const satisfies Cause[];
/** Causes that end the session at once or say so: a second fault would have no time. */
const variations = [
  'plain',
  'plain',
  'plain',
  'plain',
  'bulk',
  'bulk',
  'cpu load',
  'at start',
  'two faults',
  'two faults',
] as const;

function makeCase(chance: Chance, seed: number, cause: Cause, index: number): Case {
  const fault = makers[cause](chance);
  let variation: Case['variation'] =
    variations[(seed + index + 3 * causes.indexOf(cause)) % variations.length]!;
  // A fault before the session has any past to compare with is only noticeable if it interrupts.
  if (cause === 'proxy-interference' && variation === 'at start') variation = 'plain';
  const embedded =
    cause === 'server-unreachable' || (fault.cause === 'satellite-restarted' && fault.how === 'stopped');
  const faults = [{ fault: fault as Fault, afterMs: 0 }];
  if (variation === 'two faults') {
    const other = chance.pick(
      survivable.filter((each) => each !== cause && !(embedded && each === 'satellite-agent-network')),
    );
    faults.unshift({ fault: makers[other](chance), afterMs: 0 });
    // The second one begins while the first one lasts, or soon after it.
    faults[1]!.afterMs = seconds(chance, 0, 12);
  }
  return {
    ...{ id: `${seed}-${cause}-${index + 1}`, title: cause, faults, variation },
    satellite: embedded ? 'embedded' : 'own',
    udp: cause === 'udp-blocked',
    // A connection that is closed is opened again at once: that is only noticeable over a distance.
    link: {
      clientMs:
        fault.cause === 'proxy-interference' && fault.how === 'reset'
          ? chance.between(150, 220)
          : chance.between(2, 40),
      satelliteMs: chance.between(9, 25),
    },
    beforeMs: variation === 'at start' ? seconds(chance, 3, 8) : seconds(chance, 24, 34),
    quietMs: 0,
  };
}

/** The cases of a seed, in random order: `each` of every cause, and quiet ones of some minutes. */
export function makeCases(
  seed: number,
  {
    each = 10,
    only,
    quietMinutes = 0,
  }: { each?: number; only?: readonly Cause[] | undefined; quietMinutes?: number },
): Case[] {
  const chance = makeChance(seed);
  let number = 0;
  const faulty = (only ?? causes).flatMap((cause) => {
    // Each cause has its own numbers, so that `only` repeats the same cases.
    const own = makeChance(seed * 1000 + causes.indexOf(cause));
    return Array.from({ length: each }, (_, index) => makeCase(own, seed, cause, index));
  });
  const quiet = Array.from(
    { length: quietMinutes > 0 ? Math.ceil(quietMinutes / 10) : 0 },
    (): Case => ({
      ...{
        id: `${seed}-quiet-${++number}`,
        title: 'quiet',
        faults: [],
        variation: 'plain',
        satellite: 'own',
        udp: false,
      },
      link: { clientMs: chance.between(2, 40), satelliteMs: chance.between(9, 25) },
      ...{ beforeMs: 0, quietMs: Math.min(10, quietMinutes) * 60_000 },
    }),
  );
  // The long ones first, so that none of them is the last to end.
  return [...quiet, ...chance.shuffle(faulty)];
}
