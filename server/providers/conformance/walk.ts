import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import type { Provider, ProviderState, Removed, StepResult, WorkspaceSpec } from '../provider.ts';
import type { ConformanceSubject } from './conformance.ts';
import { once, type Step, stored } from './steps.ts';
import { type Fault, type Operation, planWalk, slots, type Wish } from './walk-plan.ts';

/** The connection of one replica to the platform, which a walk breaks. */
export interface FaultyConnection {
  set(mode: 'open' | 'cut' | 'slow' | 'error'): void;
  /** Like `cut` for good, after so many more calls. */
  dieAfter(calls: number): void;
  readonly isDead: boolean;
  close(): Promise<void>;
}

export interface WalkSubject extends Omit<ConformanceSubject, 'makeProvider'> {
  /** A server that just started. `connection`: absent if nothing lies between the provider and its platform. */
  makeReplica(): Promise<{ provider: Provider; connection?: FaultyConnection }>;
  /** The same workspace on a newer image. */
  updateOf(spec: WorkspaceSpec): WorkspaceSpec;
  /** Removes the compute of a workspace from the platform, if there is any. */
  removeCompute(spec: WorkspaceSpec): Promise<void>;
}

type Replica = Awaited<ReturnType<WalkSubject['makeReplica']>>;

/** A workspace as the database of the server would have it. */
interface Workspace {
  spec: WorkspaceSpec;
  state: ProviderState;
  /** What its home must contain; null: nothing was written yet. */
  mark: string | null;
  isRunning: boolean;
  /** The retained home that it takes over, until a start is done. */
  claims: Retained | null;
}

interface Retained {
  spec: WorkspaceSpec;
  state: ProviderState;
  mark: string | null;
  isClaimed: boolean;
}

/** Workspaces change one at a time, several of them at once. */
const lanes = 3;
/** A transition that takes longer is stuck, also on a busy machine. */
const stuckAfterMs = 180_000;
const maxDelayMs = 250;
/** CI takes the same walk each time; walks with other seeds are long, and taken by hand. */
const defaultSeed = 1;
/** How many steps a broken connection lasts. */
const faultSteps = 3;

export interface WalkReport {
  seed: number;
  operations: number;
  steps: number;
  starts: number;
  faults: Record<string, number>;
  /** Failures that an injected fault excuses, by code. */
  failures: Record<string, number>;
  homesChecked: number;
}

/**
 * A random walk: operations of a seed, with faults, then a settle without any. After that no home may be lost, nothing of
 * a removed workspace left, and no workspace stuck.
 */
export async function walk(subject: WalkSubject, seed: number, count: number): Promise<WalkReport> {
  const report: WalkReport = {
    seed,
    operations: count,
    steps: 0,
    starts: 0,
    faults: {},
    failures: {},
    homesChecked: 0,
  };
  const table: (Workspace | null)[] = Array.from({ length: slots }, () => null);
  const retained = new Set<Retained>();
  const history: string[] = [];
  const closing: Promise<unknown>[] = [];
  let builds = 0;
  let marks = 0;
  const add = (counts: Record<string, number>, key: string) => {
    counts[key] = (counts[key] ?? 0) + 1;
  };

  function retire({ provider, connection }: Replica) {
    closing.push(provider.close().finally(() => connection?.close()));
  }

  async function makeLane() {
    const replicas = [await subject.makeReplica(), await subject.makeReplica()];
    let turn = 0;

    async function replace(replica: Replica) {
      retire(replica);
      replicas[replicas.indexOf(replica)] = await subject.makeReplica();
    }

    /** One step, with the fault if it is its turn. Null: its result was lost with the server. */
    async function takeStep<Done>(
      step: (by: Provider) => Step<Done>,
      { spec, state }: Workspace,
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
      workspace: Workspace,
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

    async function start(workspace: Workspace, fault: Fault, at: number) {
      const { claims } = workspace;
      const spec: WorkspaceSpec = claims
        ? {
            ...workspace.spec,
            restore: { workspaceId: claims.spec.workspaceId, state: stored(claims.state) },
          }
        : workspace.spec;
      const launch = subject.makeLaunch(`b${++builds}`);
      report.starts++;
      workspace.isRunning = false;
      const done = await transition(
        'start',
        workspace,
        (by) => (state, context) => by.start(spec, launch, state, context),
        fault,
        at,
      );
      if (!done) return;
      if (claims) {
        retained.delete(claims);
        workspace.claims = null;
      }
      if (fault === 'kill-agent' || fault === 'remove-compute') return;
      workspace.isRunning = true;
      if (workspace.mark !== null) {
        report.homesChecked++;
        expect(await subject.readHome(spec, 'mark'), 'the mark in the home').toBe(workspace.mark);
      }
      const mark = `mark ${++marks}`;
      await subject.writeHome(spec, 'mark', mark);
      workspace.mark = mark;
      expect(await subject.countAgents(spec), 'agents of a workspace').toBe(1);
    }

    async function stop(workspace: Workspace, fault: Fault, at: number) {
      const { workspaceId } = workspace.spec;
      workspace.isRunning = false;
      const done = await transition(
        'stop',
        workspace,
        (by) => (state, context) => by.stop(workspaceId, state, context),
        fault,
        at,
      );
      if (done && fault !== 'kill-agent')
        expect(await subject.countAgents(workspace.spec), 'agents of a stopped workspace').toBe(0);
    }

    async function remove(slot: number, home: 'keep' | 'discard', fault: Fault, at: number) {
      const workspace = table[slot]!;
      const { workspaceId } = workspace.spec;
      const { claims } = workspace;
      const isDormant = claims?.spec.workspaceId === workspaceId;
      workspace.isRunning = false;
      // A home that may be half deleted is not missed.
      if (home === 'discard' && !claims) workspace.mark = null;
      const done = await transition<Removed>(
        'remove',
        workspace,
        (by) => (state, context) => by.remove(workspaceId, state, isDormant ? 'keep' : home, context),
        fault,
        at,
      );
      if (!done) return null;
      table[slot] = null;
      if (claims) {
        claims.isClaimed = false;
        // A start that had not finished is undone.
        if (isDormant && done.homeRetained) claims.state = stored(done.state);
        return claims;
      }
      if (workspace.mark !== null) expect(done.homeRetained, 'whether the home is retained').toBe(true);
      if (!done.homeRetained) return null;
      const entry: Retained = {
        spec: workspace.spec,
        state: stored(done.state),
        mark: workspace.mark,
        isClaimed: false,
      };
      retained.add(entry);
      return entry;
    }

    async function purge(at: number) {
      const entry = [...retained].filter(({ isClaimed }) => !isClaimed)[at - 1];
      if (!entry) return;
      const except = new Set([...retained].filter((one) => one.isClaimed).map((one) => one.spec.workspaceId));
      const only = entry.spec.workspaceId;
      retained.delete(entry);
      const { purged, incomplete } = await replicas[0]!.provider.purgeHomes({ only, except });
      expect([...purged, ...(incomplete ? [only] : [])]).toEqual([only]);
    }

    async function observe(workspace: Workspace, fault: Fault) {
      const mode = fault === 'cut' || fault === 'error' ? fault : 'open';
      const { provider, connection } = replicas[turn++ % replicas.length]!;
      connection?.set(mode);
      const seen = await provider.observe(workspace.spec.workspaceId, workspace.state, workspace.spec);
      connection?.set('open');
      const isBlind = mode !== 'open' && connection !== undefined;
      if (isBlind) expect(seen.kind).toBe('unknown');
      else if (workspace.isRunning) expect(seen, 'a running workspace').toMatchObject({ kind: 'running' });
    }

    return {
      start,
      remove,
      stop,
      async run({ slot, wish, fault, at }: Operation) {
        const workspace = table[slot] ?? null;
        if (wish === 'purge') return purge(at);
        if (!workspace) {
          const claims =
            wish === 'restore' ? ([...retained].find(({ isClaimed }) => !isClaimed) ?? null) : null;
          if (claims) claims.isClaimed = true;
          table[slot] = {
            spec: subject.makeSpec(),
            state: {},
            mark: claims?.mark ?? null,
            isRunning: false,
            claims,
          };
          return start(table[slot], fault, at);
        }
        await runOn(workspace, slot, wish, fault, at);
      },
      async close() {
        for (const replica of replicas) retire(replica);
      },
    };

    async function runOn(workspace: Workspace, slot: number, wish: Wish, fault: Fault, at: number) {
      if (wish === 'observe') return observe(workspace, fault);
      if (wish === 'stop') return stop(workspace, fault, at);
      if (wish === 'remove' || wish === 'discard')
        return void (await remove(slot, wish === 'remove' ? 'keep' : 'discard', fault, at));
      if (wish === 'update') workspace.spec = subject.updateOf(workspace.spec);
      if (wish !== 'dormant' || workspace.claims) return start(workspace, fault, at);
      const entry = await remove(slot, 'keep', fault, at);
      if (!entry) return;
      entry.isClaimed = true;
      // The workspace stays, and takes its own home back when it is started again.
      table[slot] = { ...workspace, state: {}, claims: entry };
    }
  }

  type Lane = Awaited<ReturnType<typeof makeLane>>;

  /** Without faults: every workspace starts on its home, and every retained home can be restored. */
  async function settle(lane: Lane) {
    for (const [slot, workspace] of table.entries()) {
      if (!workspace) continue;
      await lane.start(workspace, 'none', 0);
      await lane.remove(slot, 'keep', 'none', 0);
    }
    for (const entry of [...retained]) {
      if (entry.isClaimed)
        throw new Error(`The home of ${entry.spec.workspaceId} is claimed by no workspace.`);
      entry.isClaimed = true;
      table[0] = { spec: subject.makeSpec(), state: {}, mark: entry.mark, isRunning: false, claims: entry };
      await lane.start(table[0], 'none', 0);
      await lane.remove(0, 'discard', 'none', 0);
    }
  }

  /** What is left on the platform although every workspace and home is gone. */
  async function expectNothingLeft() {
    const { provider, connection } = await subject.makeReplica();
    const { incomplete } = await provider.purgeHomes({});
    expect(incomplete).toBe(false);
    const left = (await provider.objects?.list()) ?? [];
    expect(left, 'orphans').toEqual([]);
    retire({ provider, ...(connection && { connection }) });
  }

  const plan = planWalk(seed, count);
  try {
    const made = await Promise.all(Array.from({ length: lanes }, makeLane));
    let failed: unknown;
    await Promise.all(
      made.map(async (lane, index) => {
        for (const [position, operation] of plan.entries()) {
          if (operation.slot % lanes !== index || failed !== undefined) continue;
          history.push(
            `${position} ${JSON.stringify(operation)} ${table[operation.slot]?.spec.workspaceId ?? ''}`,
          );
          try {
            await lane.run(operation);
          } catch (error) {
            failed ??= new Error(`operation ${position} ${JSON.stringify(operation)}`, { cause: error });
          }
        }
      }),
    );
    if (failed !== undefined) throw failed;
    await settle(made[0]!);
    for (const lane of made) await lane.close();
    await expectNothingLeft();
    return report;
  } catch (error) {
    const shown = history.slice(-40).join('\n');
    const cause = error instanceof Error && error.cause instanceof Error ? `\n${error.cause.stack}` : '';
    throw new Error(
      `The walk with the seed ${seed} failed: ${(error as Error).stack}${cause}\nIts last operations:\n${shown}`,
    );
  } finally {
    await Promise.allSettled(closing);
  }
}

/**
 * Registers a random walk. `CDE_WALK_SEED` repeats the operations of another; `CDE_WALK_OPERATIONS` makes it longer.
 */
export function testRandomWalk(name: string, setUp: () => Promise<WalkSubject>, operations: number) {
  const count = Number(process.env.CDE_WALK_OPERATIONS ?? operations);
  const seed = Number(process.env.CDE_WALK_SEED ?? defaultSeed);
  describe(`random walk: ${name}`, () => {
    test(
      `loses no home and leaves nothing behind (${count} operations)`,
      {
        timeout: 600_000 + count * 20_000,
      },
      async () => {
        const subject = await setUp();
        try {
          process.stdout.write(`random walk: ${name}: seed ${seed}\n`);
          const report = await walk(subject, seed, count);
          process.stdout.write(`random walk: ${name}: ${JSON.stringify(report)}\n`);
        } finally {
          await subject.close();
        }
      },
    );
  });
}
