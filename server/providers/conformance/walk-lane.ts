import { expect } from 'vitest';
import type { Removed, WorkspaceSpec } from '../provider.ts';
import { stored } from './steps.ts';
import type { Fault, Operation, Wish } from './walk-plan.ts';
import { makeWalkReplicas } from './walk-replicas.ts';
import type { RetainedHome, WalkWorkspace, WalkWorld } from './walk-world.ts';

export type Lane = Awaited<ReturnType<typeof makeLane>>;

/** Changes its workspaces one after the other, and checks each after every change. */
export async function makeLane(world: WalkWorld) {
  const { subject, report, workspaces, retained } = world;
  const replicas = await makeWalkReplicas(world);

  async function start(workspace: WalkWorkspace, fault: Fault, at: number) {
    const { claims } = workspace;
    const spec: WorkspaceSpec = claims
      ? {
          ...workspace.spec,
          restore: { workspaceId: claims.spec.workspaceId, state: stored(claims.state) },
        }
      : workspace.spec;
    const launch = subject.makeLaunch(world.nextBuild());
    report.starts++;
    workspace.isRunning = false;
    const done = await replicas.transition(
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
    const mark = world.nextMark();
    await subject.writeHome(spec, 'mark', mark);
    workspace.mark = mark;
    expect(await subject.countAgents(spec), 'agents of a workspace').toBe(1);
  }

  async function stop(workspace: WalkWorkspace, fault: Fault, at: number) {
    const { workspaceId } = workspace.spec;
    workspace.isRunning = false;
    const done = await replicas.transition(
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
    const workspace = workspaces[slot]!;
    const { workspaceId } = workspace.spec;
    const { claims } = workspace;
    const isDormant = claims?.spec.workspaceId === workspaceId;
    workspace.isRunning = false;
    // A home that may be half deleted is not missed.
    if (home === 'discard' && !claims) workspace.mark = null;
    const done = await replicas.transition<Removed>(
      'remove',
      workspace,
      (by) => (state, context) => by.remove(workspaceId, state, isDormant ? 'keep' : home, context),
      fault,
      at,
    );
    if (!done) return null;
    workspaces[slot] = null;
    if (claims) {
      claims.isClaimed = false;
      // A start that had not finished is undone.
      if (isDormant && done.homeRetained) claims.state = stored(done.state);
      return claims;
    }
    if (workspace.mark !== null) expect(done.homeRetained, 'whether the home is retained').toBe(true);
    if (!done.homeRetained) return null;
    const entry: RetainedHome = {
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
    const { purged, incomplete } = await replicas.next().provider.purgeHomes({ only, except });
    expect([...purged, ...(incomplete ? [only] : [])]).toEqual([only]);
  }

  async function observe(workspace: WalkWorkspace, fault: Fault) {
    const mode = fault === 'cut' || fault === 'error' ? fault : 'open';
    const { provider, connection } = replicas.next();
    connection?.set(mode);
    const seen = await provider.observe(workspace.spec.workspaceId, workspace.state, workspace.spec);
    connection?.set('open');
    const isBlind = mode !== 'open' && connection !== undefined;
    if (isBlind && subject.observesFromLists && seen.kind !== 'unknown') return;
    if (isBlind) expect(seen.kind).toBe('unknown');
    else if (workspace.isRunning) expect(seen, 'a running workspace').toMatchObject({ kind: 'running' });
  }

  return {
    start,
    remove,
    stop,
    async run({ slot, wish, fault, at }: Operation) {
      const workspace = workspaces[slot] ?? null;
      if (wish === 'purge') return purge(at);
      if (!workspace) {
        const claims =
          wish === 'restore' ? ([...retained].find(({ isClaimed }) => !isClaimed) ?? null) : null;
        if (claims) claims.isClaimed = true;
        workspaces[slot] = {
          spec: subject.makeSpec(),
          state: {},
          mark: claims?.mark ?? null,
          isRunning: false,
          claims,
        };
        return start(workspaces[slot], fault, at);
      }
      await runOn(workspace, slot, wish, fault, at);
    },
    close: replicas.retireAll,
  };

  async function runOn(workspace: WalkWorkspace, slot: number, wish: Wish, fault: Fault, at: number) {
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
    workspaces[slot] = { ...workspace, state: {}, claims: entry };
  }
}
