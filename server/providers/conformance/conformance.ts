import { afterEach, beforeEach, describe, expect, type TestFunction, test, vi } from 'vitest';
import {
  type AgentLaunch,
  endCauses,
  type Observation,
  type Provider,
  type ProviderState,
  type Removed,
  type Started,
  type WorkspaceSpec,
} from '../provider.ts';
import { drive, finish, interrupt, type Step, stored } from './steps.ts';

/** What the suite needs from a provider and the platform behind it. Created for each case. */
export interface ConformanceSubject {
  /** A provider as a server has it that just started; another call stands for another replica, or a restart. */
  makeProvider(): Provider;
  /** A workspace that starts with what is at hand. The id is unused so far. */
  makeSpec(): WorkspaceSpec;
  makeLaunch(buildId: string): AgentLaunch;
  /** Writes a file into the home of a running workspace, as its developer. */
  writeHome(spec: WorkspaceSpec, name: string, text: string): Promise<void>;
  /** Null if there is no such file. */
  readHome(spec: WorkspaceSpec, name: string): Promise<string | null>;
  /** Kills the agent of a running workspace, which then ends by itself. */
  killAgent(spec: WorkspaceSpec): Promise<void>;
  /** How many agents of the workspace run now, counted on the platform without the provider. */
  countAgents(spec: WorkspaceSpec): Promise<number>;
  close(): Promise<void>;
}

/** How long a condition is waited for: much longer than it takes, because the machine may be busy. */
const patience = { timeout: 90_000, interval: 20 };

/** More than any transition changes its state: the kill tests stop earlier, when it has finished. */
const maxKills = 12;

/**
 * Registers the cases of the provider contract: it checks what a provider does, not how. Each provider calls it from a
 * test of its own.
 */
export function testProviderContract(
  name: string,
  setUp: () => Promise<ConformanceSubject>,
  {
    timeoutMs = 180_000,
    ...options
  }: {
    timeoutMs?: number;
    /** A start takes many seconds: without the case that starts once for each change of the state, and has a test elsewhere. */
    isSlow?: boolean;
    /** The names of the only cases, for a platform that differs from another one in little. */
    only?: string[];
  } = {},
) {
  describe(`provider contract: ${name}`, { timeout: timeoutMs }, () => {
    let subject: ConformanceSubject;
    let provider: Provider;
    let spec: WorkspaceSpec;
    const open: Provider[] = [];
    const testCase = (title: string, run: TestFunction) =>
      test.skipIf(options.only && !options.only.includes(title))(title, run);

    const newServer = () => {
      const made = subject.makeProvider();
      open.push(made);
      return made;
    };
    const starting =
      (buildId = 'b1', of = spec, by = provider): Step<Started> =>
      (state, context) =>
        by.start(of, subject.makeLaunch(buildId), state, context);
    const stopping =
      (of = spec, by = provider): Step<unknown> =>
      (state, context) =>
        by.stop(of.workspaceId, state, context);
    const removing =
      (home: 'keep' | 'discard', of = spec, by = provider): Step<Removed> =>
      (state, context) =>
        by.remove(of.workspaceId, state, home, context);
    const observe = (state: ProviderState, of = spec, by = provider) =>
      by.observe(of.workspaceId, stored(state), of);
    const restoreOf = (from: WorkspaceSpec, state: ProviderState): WorkspaceSpec => ({
      ...subject.makeSpec(),
      restore: { workspaceId: from.workspaceId, state: stored(state) },
    });

    function expectGone(seen: Observation) {
      expect(seen).toMatchObject({ kind: 'gone', message: expect.stringMatching(/^\p{Lu}/u) });
      const { cause } = seen as Extract<Observation, { kind: 'gone' }>;
      expect(Object.keys(endCauses)).toContain(cause);
      return cause;
    }

    beforeEach(async () => {
      subject = await setUp();
      provider = newServer();
      spec = subject.makeSpec();
    });
    afterEach(async () => {
      await Promise.all(open.splice(0).map((each) => each.close()));
      await subject.close();
    });

    testCase('starts, stops, and starts again on the same home', async () => {
      expectGone(await observe({}));
      const started = await finish(starting());
      expect(await observe(started.state)).toMatchObject({ kind: 'running' });
      expect(await subject.countAgents(spec)).toBe(1);
      await subject.writeHome(spec, 'notes', 'kept');

      const stopped = await finish(stopping(), started.state);
      expectGone(await observe(stopped.state));
      expect(await subject.countAgents(spec)).toBe(0);

      const again = await finish(starting('b2'), stopped.state);
      expect(await observe(again.state)).toMatchObject({ kind: 'running' });
      expect(await subject.readHome(spec, 'notes')).toBe('kept');
    });

    testCase('a start of a newer build replaces the older compute and keeps the home', async () => {
      const first = await finish(starting('b1'));
      await subject.writeHome(spec, 'notes', 'kept');
      const second = await finish(starting('b2'), first.state);
      expect(await observe(second.state)).toMatchObject({ kind: 'running' });
      expect(await subject.countAgents(spec)).toBe(1);
      expect(await subject.readHome(spec, 'notes')).toBe('kept');
    });

    testCase('every step can be repeated, also with the state before it', async () => {
      const started = await finish(starting());
      await finish(starting(), started.state);
      const repeated = await finish(starting(), {});
      expect(await subject.countAgents(spec)).toBe(1);
      await subject.writeHome(spec, 'notes', 'kept');

      const stopped = await finish(stopping(), repeated.state);
      await finish(stopping(), stopped.state);
      await finish(stopping(), started.state);
      expect(await subject.countAgents(spec)).toBe(0);

      const removed = await finish(removing('keep'), stopped.state);
      expect(removed.homeRetained).toBe(true);
      expect((await finish(removing('keep'), removed.state)).homeRetained).toBe(true);
      expect((await finish(removing('keep'), stopped.state)).homeRetained).toBe(true);

      const other = restoreOf(spec, removed.state);
      const restored = await finish(starting('b3', other));
      await finish(starting('b3', other), restored.state);
      expect(await subject.readHome(other, 'notes')).toBe('kept');
    });

    testCase('a retained home can be taken over by the workspace that it belonged to', async () => {
      const started = await finish(starting());
      await subject.writeHome(spec, 'notes', 'kept');
      const removed = await finish(removing('keep'), started.state);
      expect(removed.homeRetained).toBe(true);
      const same = { ...spec, restore: { workspaceId: spec.workspaceId, state: stored(removed.state) } };
      const again = await finish(starting('b2', same));
      expect(await subject.readHome(spec, 'notes')).toBe('kept');
      // It is no longer a retained home, so nothing purges it.
      await provider.purgeHomes({});
      const { state } = await finish(starting('b3'), again.state);
      expect(await subject.readHome(spec, 'notes')).toBe('kept');
      expect(await observe(state)).toMatchObject({ kind: 'running' });
    });

    testCase(
      'a home that was to be taken over by its own workspace survives a removal half-way',
      async () => {
        const started = await finish(starting());
        await subject.writeHome(spec, 'notes', 'kept');
        const removed = await finish(removing('keep'), started.state);
        const same = { ...spec, restore: { workspaceId: spec.workspaceId, state: stored(removed.state) } };
        for (let kills = 1; kills <= maxKills; kills++) {
          const begun = await interrupt(starting(`c${kills}`, same), {}, kills);
          const undone = await finish(removing('keep'), begun.recorded);
          same.restore.state = stored(undone.homeRetained ? undone.state : same.restore.state);
          if (begun.wasLast) break;
        }
        const again = await finish(starting('b2', same));
        expect(await subject.readHome(spec, 'notes')).toBe('kept');
        expect(await observe(again.state)).toMatchObject({ kind: 'running' });
      },
    );

    testCase('a restore whose start is not done is undone by a removal', async ({ skip }) => {
      skip(options.isSlow ?? false);
      const started = await finish(starting());
      await subject.writeHome(spec, 'notes', 'kept');
      const removed = await finish(removing('keep'), started.state);
      for (let kills = 1; kills <= maxKills; kills++) {
        const heir = restoreOf(spec, removed.state);
        // The last one has finished, but nobody knows.
        const begun = await interrupt(starting(`c${kills}`, heir), {}, kills);
        expect((await finish(removing('discard', heir), begun.recorded)).homeRetained).toBe(false);
        if (begun.wasLast) break;
      }
      const heir = restoreOf(spec, removed.state);
      await finish(starting('b2', heir));
      expect(await subject.readHome(heir, 'notes')).toBe('kept');
    });

    testCase('stop and remove of a workspace that was never started are done at once', async () => {
      expect(await finish(stopping())).toMatchObject({ kind: 'done' });
      expect(await finish(removing('keep'))).toMatchObject({ kind: 'done', homeRetained: false });
    });

    testCase('a server killed at any step of a start leaves what the next one finishes', async () => {
      let recorded: ProviderState = {};
      for (let kills = 1; kills <= maxKills; kills++) {
        const build = `b${kills}`;
        const before = newServer();
        const interrupted = await interrupt(starting(build, spec, before), recorded, kills);
        await before.close();
        const after = newServer();
        const started = await finish(starting(build, spec, after), interrupted.recorded);
        expect(await observe(started.state, spec, after)).toMatchObject({ kind: 'running' });
        expect(await subject.countAgents(spec)).toBe(1);
        if (kills === 1) await subject.writeHome(spec, 'notes', 'kept');
        expect(await subject.readHome(spec, 'notes')).toBe('kept');
        recorded = started.state;
        if (interrupted.wasLast) break;
      }
    });

    testCase(
      'a server killed at any step of a stop or a removal leaves what the next one finishes',
      async () => {
        for (let kills = 1; kills <= maxKills; kills++) {
          const started = await finish(starting(`b${kills}`));
          const stop = await interrupt(stopping(), started.state, kills);
          const after = newServer();
          const stopped = await finish(stopping(spec, after), stop.recorded);
          expect(await subject.countAgents(spec)).toBe(0);

          const running = await finish(starting(`c${kills}`, spec, after), stopped.state);
          await subject.writeHome(spec, 'notes', `of ${kills}`);
          const remove = await interrupt(removing('keep', spec, after), running.state, kills);
          const last = newServer();
          const removed = await finish(removing('keep', spec, last), remove.recorded);
          expect(removed.homeRetained).toBe(true);
          expect(await subject.countAgents(spec)).toBe(0);

          const next = restoreOf(spec, removed.state);
          const restored = await finish(starting('b0', next, last));
          expect(await subject.readHome(next, 'notes')).toBe(`of ${kills}`);
          await finish(removing('discard', next, last), restored.state);
          if (stop.wasLast && remove.wasLast) break;
          spec = subject.makeSpec();
        }
      },
    );

    testCase('an agent that ends by itself is reported with a cause of the workload', async () => {
      const started = await finish(starting());
      const changed: string[] = [];
      provider.onChange((workspaceId) => void changed.push(workspaceId));
      await subject.killAgent(spec);
      await vi.waitUntil(() => changed.includes(spec.workspaceId), patience);
      const seen = await vi.waitUntil(async () => {
        const now = await observe(started.state);
        return now.kind === 'gone' ? now : null;
      }, patience);
      expect(endCauses[expectGone(seen)]).toBe('workload');

      await finish(starting('b2'), started.state);
      expect(await subject.countAgents(spec)).toBe(1);
    });

    testCase(
      'a retained home survives until it is purged, and is restored into another workspace',
      async () => {
        const started = await finish(starting());
        await subject.writeHome(spec, 'notes', 'kept');
        const { state, homeRetained } = await finish(removing('keep'), started.state);
        expect(homeRetained).toBe(true);

        const long = { retainedBefore: new Date(Date.now() - 3600_000) };
        expect((await provider.purgeHomes(long)).purged).not.toContain(spec.workspaceId);
        const except = new Set([spec.workspaceId]);
        expect((await provider.purgeHomes({ only: spec.workspaceId, except })).purged).toEqual([]);

        const heir = restoreOf(spec, state);
        const restored = await finish(starting('b2', heir));
        expect(await subject.readHome(heir, 'notes')).toBe('kept');
        // It belongs to the new workspace now: purging the old one deletes nothing.
        expect((await provider.purgeHomes({ only: spec.workspaceId })).purged).toEqual([]);
        expect(await subject.readHome(heir, 'notes')).toBe('kept');

        const removed = await finish(removing('keep', heir), restored.state);
        await vi.waitUntil(
          async () =>
            (await provider.purgeHomes({ only: heir.workspaceId })).purged.includes(heir.workspaceId),
          patience,
        );
        expect(await provider.purgeHomes({ only: heir.workspaceId })).toEqual({
          purged: [],
          incomplete: false,
        });
        // What is lost is said: a start never puts an empty home in its place.
        const late = restoreOf(heir, removed.state);
        expect(await drive(starting('b3', late))).toMatchObject({
          kind: 'failed',
          error: { code: 'home-lost' },
        });
      },
    );

    testCase(
      'what belongs to no workspace is found and removed, and its home can be adopted',
      async ({ skip }) => {
        const { objects } = provider;
        if (!objects) return skip('its orphans are found elsewhere');
        const started = await finish(starting());
        await subject.writeHome(spec, 'notes', 'kept');
        const neighbour = subject.makeSpec();
        const neighbourStarted = await finish(starting('b1', neighbour));
        const ours = async () =>
          (await objects.list()).filter(({ workspaceId }) => workspaceId === spec.workspaceId);

        const found = await ours();
        const [home, ...others] = [...found].sort((a) => (a.kind === 'home' ? -1 : 1));
        expect(home).toMatchObject({ kind: 'home', createdAt: expect.any(Date) });
        expect(others).toContainEqual(
          expect.objectContaining({ kind: 'compute', createdAt: expect.any(Date) }),
        );
        expect(await objects.remove(home!)).toBe(false);
        for (const object of others) await vi.waitUntil(() => objects.remove(object), patience);
        for (const object of others) expect(await objects.remove(object)).toBe(true);
        // A platform can list what is being removed for a while.
        await vi.waitUntil(async () => (await ours()).every(({ kind }) => kind === 'home'), patience);
        expect(await ours()).toMatchObject([{ kind: 'home', name: home!.name }]);
        expectGone(await observe(started.state));
        expect(await observe(neighbourStarted.state, neighbour)).toMatchObject({ kind: 'running' });

        const hourMs = 3600_000;
        const retainedAt = new Date(Date.now() - hourMs);
        const state = await objects.adopt(home!, spec.workspaceId, retainedAt);
        const older = { retainedBefore: new Date(retainedAt.getTime() - hourMs) };
        expect((await provider.purgeHomes(older)).purged).toEqual([]);
        const heir = restoreOf(spec, state!);
        await finish(starting('b2', heir));
        expect(await subject.readHome(heir, 'notes')).toBe('kept');
        // An adopted home is purged like any other retained one.
        const last = subject.makeSpec();
        await finish(starting('b1', last));
        const removed = await finish(removing('keep', last));
        expect(removed.homeRetained).toBe(true);
        const retained = (await objects.list()).find(({ workspaceId }) => workspaceId === last.workspaceId)!;
        await objects.adopt(retained, last.workspaceId, retainedAt);
        const { purged } = await provider.purgeHomes({ retainedBefore: new Date(Date.now() - hourMs / 2) });
        expect(purged).toEqual([last.workspaceId]);
      },
    );

    testCase('a discarded home is gone', async () => {
      const started = await finish(starting());
      await subject.writeHome(spec, 'notes', 'secret');
      const removed = await finish(removing('discard'), started.state);
      expect(removed.homeRetained).toBe(false);
      expect(await subject.countAgents(spec)).toBe(0);
      await finish(starting('b2'));
      expect(await subject.readHome(spec, 'notes')).toBeNull();
    });
  });
}
