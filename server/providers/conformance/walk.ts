import { describe, expect, test } from 'vitest';
import { type Lane, makeLane } from './walk-lane.ts';
import { planWalk, slots } from './walk-plan.ts';
import type { RetainedHome, WalkReport, WalkSubject, WalkWorkspace, WalkWorld } from './walk-world.ts';

/** Workspaces change one at a time, several of them at once. */
const lanes = 3;
/** CI takes the same walk each time; walks with other seeds are long, and taken by hand. */
const defaultSeed = 1;

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
  const workspaces: (WalkWorkspace | null)[] = Array.from({ length: slots }, () => null);
  const retained = new Set<RetainedHome>();
  const history: string[] = [];
  const closing: Promise<unknown>[] = [];
  let builds = 0;
  let marks = 0;
  const world: WalkWorld = {
    subject,
    report,
    workspaces,
    retained,
    nextBuild: () => `b${++builds}`,
    nextMark: () => `mark ${++marks}`,
    retire({ provider, connection }) {
      closing.push(provider.close().finally(() => connection?.close()));
    },
  };

  /** Without faults: every workspace starts on its home, and every retained home can be restored. */
  async function settle(lane: Lane) {
    for (const [slot, workspace] of workspaces.entries()) {
      if (!workspace) continue;
      await lane.start(workspace, 'none', 0);
      await lane.remove(slot, 'keep', 'none', 0);
    }
    for (const entry of [...retained]) {
      if (entry.isClaimed)
        throw new Error(`The home of ${entry.spec.workspaceId} is claimed by no workspace.`);
      entry.isClaimed = true;
      workspaces[0] = {
        spec: subject.makeSpec(),
        state: {},
        mark: entry.mark,
        isRunning: false,
        claims: entry,
      };
      await lane.start(workspaces[0], 'none', 0);
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
    world.retire({ provider, ...(connection && { connection }) });
  }

  const plan = planWalk(seed, count);
  try {
    const made = await Promise.all(Array.from({ length: lanes }, () => makeLane(world)));
    let failed: unknown;
    await Promise.all(
      made.map(async (lane, index) => {
        for (const [position, operation] of plan.entries()) {
          if (operation.slot % lanes !== index || failed !== undefined) continue;
          history.push(
            `${position} ${JSON.stringify(operation)} ${workspaces[operation.slot]?.spec.workspaceId ?? ''}`,
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
    for (const lane of made) lane.close();
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
