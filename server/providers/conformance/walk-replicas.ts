import { setTimeout as delay } from 'node:timers/promises';
import type { Provider, StepResult } from '../provider.ts';
import { once, type Step, stored } from './steps.ts';
import type { Fault } from './walk-plan.ts';
import type { FaultyConnection, WalkSubject, WalkWorkspace, WalkWorld } from './walk-world.ts';

/** A transition that takes longer is stuck, also on a busy machine. */
const stuckAfterMs = 180_000;
const maxDelayMs = 250;
/** How many steps a broken connection lasts. */
const faultSteps = 3;

type Replica = Awaited<ReturnType<WalkSubject['makeReplica']>>;

const add = (counts: Record<string, number>, key: string) => {
  counts[key] = (counts[key] ?? 0) + 1;
};

/** Two replicas of a server that take the steps of a workspace in turn, with faults. */
export async function makeWalkReplicas({ subject, report, retire }: WalkWorld) {
  const replicas = [await subject.makeReplica(), await subject.makeReplica()];
  let turn = 0;

  async function replace(replica: Replica) {
    retire(replica);
    replicas[replicas.indexOf(replica)] = await subject.makeReplica();
  }

  /** One step, with the fault if it is its turn. Null: its result was lost with the server. */
  async function takeStep<Done>(
    step: (by: Provider) => Step<Done>,
    { spec, state }: WalkWorkspace,
    fault: Fault,
  ): Promise<StepResult<Done> | null> {
    const replica = replicas[turn++ % replicas.length]!;
    const other = replicas[turn % replicas.length]!;
    report.steps++;
    if (fault === 'crash') {
      await once(step(replica.provider), state);
      await replace(replica);
      return null;
    }
    if (fault === 'crash-within-step') {
      const result = await once(step(replica.provider), state);
      if (!replica.connection?.isDead) return result;
      await replace(replica);
      return null;
    }
    if (fault === 'second-replica') {
      const [, result] = await Promise.all([
        once(step(other.provider), state),
        once(step(replica.provider), state),
      ]);
      return result;
    }
    if (fault === 'repeat') await once(step(replica.provider), state);
    if (fault === 'kill-agent') await subject.killAgent(spec).catch(() => {});
    if (fault === 'remove-compute') await subject.removeCompute(spec);
    return once(step(replica.provider), state);
  }

  /** Repeats a step until it is done. Null: it failed, which the fault excuses. */
  async function transition<Done>(
    name: string,
    workspace: WalkWorkspace,
    step: (by: Provider) => Step<Done>,
    fault: Fault,
    at: number,
  ) {
    const isConnection = fault === 'cut' || fault === 'slow' || fault === 'error';
    const setAll = (mode: Parameters<FaultyConnection['set']>[0]) => {
      for (const { connection } of replicas) connection?.set(mode);
    };
    const startedAt = performance.now();
    let isFaulty = false;
    try {
      for (let taken = 1; ; taken++) {
        const isNow = taken === at;
        if (isNow && fault !== 'none') {
          isFaulty = true;
          add(report.faults, fault);
        }
        if (isNow && isConnection) setAll(fault);
        if (isConnection && taken === at + faultSteps) setAll('open');
        if (fault === 'crash-within-step' && taken === 1) {
          isFaulty = true;
          add(report.faults, fault);
          replicas[turn % replicas.length]!.connection?.dieAfter(at);
        }
        const isWithinStep = fault === 'crash-within-step';
        const result = await takeStep(step, workspace, isNow || isWithinStep ? fault : 'none');
        if (result) workspace.state = stored(result.state);
        if (result?.kind === 'done') return result as Extract<StepResult<Done>, { kind: 'done' }>;
        if (result?.kind === 'failed') {
          const isExcused =
            isFaulty &&
            (fault === 'error' ||
              (name === 'start' && (fault === 'kill-agent' || fault === 'remove-compute')));
          if (!isExcused || result.error.code === 'home-lost')
            throw new Error(`${name} failed: ${JSON.stringify(result.error)}`);
          add(report.failures, result.error.code);
          return null;
        }
        if (performance.now() - startedAt > stuckAfterMs)
          throw new Error(`${name} is stuck: ${JSON.stringify(result)}`);
        await delay(Math.min(result?.kind === 'pending' ? result.retryAfterMs : 0, maxDelayMs));
      }
    } finally {
      setAll('open');
      for (const replica of [...replicas]) {
        replica.connection?.dieAfter(Number.POSITIVE_INFINITY);
        if (replica.connection?.isDead) await replace(replica);
      }
    }
  }

  return {
    transition,
    /** The replica whose turn it is. */
    next: (): Replica => replicas[turn++ % replicas.length]!,
    retireAll() {
      for (const replica of replicas) retire(replica);
    },
  };
}
