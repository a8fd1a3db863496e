import { setTimeout as delay } from 'node:timers/promises';
import { maxStepWaitMs } from '../background.ts';
import { ProviderFailure } from '../failure.ts';
import type {
  AgentLaunch,
  ProviderState,
  Started,
  StepContext,
  StepResult,
  WorkspaceSpec,
} from '../provider.ts';
import { earlyExitFailure, earlyExitMs, runIdOf } from './exit-reasons.ts';
import type { Isolation, Level } from './isolation.ts';
import { homeInside, prepareLaunch } from './launch.ts';
import { planLimits } from './limits.ts';
import { type LocalParts, readState } from './parts.ts';
import { type RunRecord, type Runs, supervisorCodes } from './runs.ts';
import { endRun } from './stop.ts';

export function makeStart(parts: LocalParts) {
  const { homes, runs, watcher } = parts;
  /** Supervisors started here whose agent has not been seen running yet, by workspace. */
  const launchedPids = new Map<string, number>();

  return async function start(
    spec: WorkspaceSpec,
    launch: AgentLaunch,
    state: ProviderState,
    context: StepContext,
  ): Promise<StepResult<Started>> {
    const { workspaceId } = spec;
    // Both are used in file names and as arguments of a shell script.
    if (!/^[\w-]+$/.test(workspaceId) || !/^[\w.-]+$/.test(launch.buildId))
      throw new Error(`The id ${JSON.stringify([workspaceId, launch.buildId])} has unexpected characters.`);
    const isolation = await parts.isolation();
    requireAvailable(isolation);
    const previous = runs.newest(workspaceId);
    const found = await runs.inspect(workspaceId, state);
    if (found.kind === 'alive') {
      if (found.compute.buildId === launch.buildId) {
        if (!(await runs.isStarted(found.compute)))
          return { kind: 'pending', state: { ...found.compute }, retryAfterMs: 20 };
        const isNew = launchedPids.get(workspaceId) === found.compute.pid;
        context.log(
          await nameAgent(runs, found.compute, isNew ? 'agent started' : 'agent is running already'),
        );
        return started(spec, found.compute, isolation);
      }
      // Makes a supervisor of the older build that is just starting give up.
      await runs.prepare(workspaceId);
      await runs.write(workspaceId, 'wanted', `${launch.buildId}\n`);
      return endRun(parts, workspaceId, found.compute, state, context);
    }
    if (
      found.kind === 'ended' &&
      found.compute.buildId === launch.buildId &&
      readState(state).reportedExit !== runIdOf(found.compute) &&
      found.exit &&
      found.exit.livedMs < earlyExitMs
    )
      return earlyExitFailure(runs, workspaceId, found.compute, found.exit);

    const home = await prepareHome(parts, spec, isolation, context);
    if (!home) return { kind: 'pending', state, retryAfterMs: 500, message: 'The home is given its owner.' };
    const supervisor = await launchAgent(
      parts,
      spec,
      launch,
      isolation,
      { uid: home.uid, previous },
      context,
    );
    launchedPids.set(workspaceId, supervisor.pid);
    const run = await waitForRun(supervisor, {
      workspaceId,
      buildId: launch.buildId,
      // The old record remains until the supervisor writes its own.
      previousRunId: found.kind === 'ended' ? runIdOf(found.compute) : null,
    });
    if (!run) return { kind: 'pending', state, retryAfterMs: 50 };
    if (run.kind === 'ended') return earlyExitFailure(runs, workspaceId, run.compute, run.exit);
    context.log(await nameAgent(runs, run.compute, 'agent started'));
    return started(spec, run.compute, isolation);
  };

  function started(spec: WorkspaceSpec, run: RunRecord, isolation: Isolation): StepResult<Started> {
    watcher.watch(spec.workspaceId, run);
    parts.stopRequests.delete(spec.workspaceId);
    launchedPids.delete(spec.workspaceId);
    const limits = planLimits(spec.workspaceId, spec.template.local, {
      controllers: parts.controllers,
      hasOwnUser: isolation.ownUid,
    });
    const holding = limits.holding.length > 0 ? ` Limits: ${limits.holding.join(', ')}.` : '';
    const missing = limits.missing.length > 0 ? ` Not limited: ${limits.missing.join(', ')}.` : '';
    const sentence =
      run.isolation === isolation.level
        ? isolation.sentence
        : `${run.isolation}: as when the agent was started.`;
    const level = { ...isolation, level: run.isolation as Level };
    return {
      kind: 'done',
      state: { ...run, home: homeInside(level, spec.owner, homes.path(spec.workspaceId)) },
      isolation: `${sentence}${holding}${missing}`,
    };
  }

  /** The run that the supervisor records, if that happens soon; null if a later step has to check. */
  async function waitForRun(
    supervisor: { ended: Promise<number> },
    expected: { workspaceId: string; buildId: string; previousRunId: string | null },
  ) {
    const { workspaceId, buildId, previousRunId } = expected;
    let code: number | null = null;
    supervisor.ended.then((value) => {
      code = value;
      watcher.check(workspaceId);
    });
    const deadline = performance.now() + maxStepWaitMs;
    while (performance.now() < deadline) {
      const found = await runs.inspect(workspaceId, null);
      const isOurs =
        found.kind !== 'none' &&
        runIdOf(found.compute) !== previousRunId &&
        found.compute.buildId === buildId;
      if (isOurs && (found.kind === 'ended' || (await runs.isStarted(found.compute)))) return found;
      if (code === supervisorCodes.limitsRefused) throw limitsRefused(runs, workspaceId);
      if (code === supervisorCodes.cannotWrite)
        throw Object.assign(new Error(`no room in ${runs.folder(workspaceId)}`), { code: 'ENOSPC' });
      // Another server was faster, or a newer build has replaced this one.
      if (code !== null && code !== 0) return null;
      await delay(2);
    }
    return null;
  }
}

async function nameAgent(runs: Runs, run: RunRecord, what: string): Promise<string> {
  return `${what}, pid ${(await runs.agentOf(run))?.agent ?? run.pid}`;
}

function requireAvailable(isolation: Isolation): void {
  const missing = !isolation.available
    ? { what: `isolation ${isolation.level}`, refused: isolation.refused, setting: 'CDE_ISOLATION' }
    : !isolation.network.available
      ? {
          what: `network ${isolation.network.kind}`,
          refused: isolation.network.refused,
          setting: 'CDE_LOCAL_NETWORK',
        }
      : null;
  if (!missing) return;
  throw new ProviderFailure({
    code: 'isolation-unavailable',
    message: `The ${missing.what}, which the configuration asks for, does not work on this machine.`,
    detail: missing.refused.join('; '),
    hint: `Fix that, or set ${missing.setting}=auto to use the best that works.`,
    fault: 'system',
  });
}

/** Prepares the home and its owner; null while a large home is still changing its owner. */
async function prepareHome(
  { homes, uids, background }: LocalParts,
  { workspaceId, restore }: WorkspaceSpec,
  isolation: Isolation,
  context: StepContext,
): Promise<{ uid: number | null } | null> {
  const uid = isolation.ownUid ? await uids.of(workspaceId) : null;
  if (restore && !(await homes.restore(restore.workspaceId, workspaceId)))
    throw new ProviderFailure({
      code: 'home-lost',
      message: 'The home that should be restored is no longer on this machine.',
      detail: 'No empty home is put in its place.',
      hint: 'Restore it from a backup, or delete this workspace.',
      fault: 'system',
    });
  const home = await background.result(`home ${workspaceId}`, () => homes.ensure(workspaceId, uid));
  if (!home) return null;
  if (home.value.created) context.log(`home ${homes.path(workspaceId)} created`);
  else if (home.value.added.length > 0)
    context.log(`new skeleton files in the home: ${home.value.added.join(', ')}`);
  return { uid };
}

async function launchAgent(
  { homes, runs, controllers, networkRepair, agent, dataDir }: LocalParts,
  spec: WorkspaceSpec,
  launch: AgentLaunch,
  isolation: Isolation,
  { uid, previous }: { uid: number | null; previous: string },
  context: StepContext,
) {
  const { workspaceId } = spec;
  const limits = planLimits(workspaceId, spec.template.local, { controllers, hasOwnUser: uid !== null });
  await runs.prepare(workspaceId);
  await networkRepair.ensure();
  const homePath = homes.path(workspaceId);
  const prepared = await prepareLaunch({
    spec,
    launch,
    agent,
    isolation,
    limits,
    uid,
    homePath,
    dataDir,
    runs,
  });
  context.log(`isolation: ${isolation.sentence}`, isolation.level === 'none' ? 'warn' : 'info');
  if (limits.holding.length > 0) context.log(`limits: ${limits.holding.join(', ')}`);
  for (const missing of limits.missing) context.log(`not limited: ${missing}`, 'warn');
  if (spec.template.home.size)
    context.log(`home.size ${spec.template.home.size}: the local provider does not limit homes`, 'warn');

  await runs.write(workspaceId, 'wanted', `${launch.buildId}\n`);
  return runs.launch({
    workspaceId,
    buildId: launch.buildId,
    isolation: isolation.level,
    token: launch.token,
    previous,
    ...prepared,
  });
}

function limitsRefused(runs: Runs, workspaceId: string): ProviderFailure {
  return new ProviderFailure({
    code: 'limits-refused',
    message: "The machine refused the template's limits.",
    detail: runs.read(workspaceId, 'launch.log')?.trim(),
    hint: "Lower the limits in the template's local section. If cgroups were just reorganised, start the workspace again.",
    fault: 'system',
  });
}
