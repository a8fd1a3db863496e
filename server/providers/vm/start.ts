import type { AgentLaunch, Started, StepContext, StepResult, WorkspaceSpec } from '../provider.ts';
import { describeEarlyExit } from './agent-exit.ts';
import { bootPlanOf, canBeRoot, homeDirectory, planOf, sizeOf } from './boot-data.ts';
import { type CloudSection, isOn, type LaunchPlan, type Machine, runOf, type Volume } from './cloud.ts';
import { attachHome, ensureHome, leaveZone } from './ensure-home.ts';
import { type CloudParts, ownLabels } from './parts.ts';
import { begun, type State, settled, writeState } from './state.ts';
import { terminate } from './stop.ts';

interface Start {
  parts: CloudParts;
  spec: WorkspaceSpec;
  section: CloudSection;
  launch: AgentLaunch;
  context: StepContext;
  pending: (message: string, state: State) => StepResult<never>;
}

/** One step towards a machine of `launch.buildId` whose agent has registered. */
export async function startStep(
  parts: CloudParts,
  spec: WorkspaceSpec,
  launch: AgentLaunch,
  state: State,
  context: StepContext,
): Promise<StepResult<Started>> {
  const pending = (message: string, next: State): StepResult<never> => {
    const about = message.split(':')[0]!;
    if (next.waitingFor !== about) context.log(message);
    return {
      kind: 'pending',
      state: writeState({ ...next, waitingFor: about }),
      retryAfterMs: parts.retryMs,
      message,
    };
  };
  const start = { parts, spec, section: parts.kind.sectionOf(spec)!, launch, context, pending };

  const from = spec.restore?.workspaceId;
  // Recorded before the home changes hands, so that a removal can give it back.
  if (from !== undefined && from !== spec.workspaceId && state.restoring === undefined)
    return { kind: 'pending', state: writeState({ ...state, restoring: from }), retryAfterMs: 0 };
  const { operation, ...known } = state;
  if (operation?.build !== launch.buildId) return stepWithMachines(start, known);
  try {
    // The cloud can refuse what a step began after its call was answered.
    if (!(await parts.cloud.isFinished!(operation.name)))
      return pending(state.waitingFor ?? 'The instance is starting.', state);
  } catch (error) {
    parts.view.changed();
    return afterRefusal(start, known, operation.zone, error);
  }
  return stepWithMachines(start, known);
}

async function stepWithMachines(start: Start, state: State): Promise<StepResult<Started>> {
  const { parts, spec, section, launch, pending } = start;
  const all = await parts.view.of(spec.workspaceId);
  const own = all.filter(({ labels }) => labels.build === launch.buildId);
  const ended = own.filter((each) => !isOn(each));
  const current = own.find(isOn);
  const unreported = ended.find((each) => runOf(each) !== state.run && runOf(each) !== state.reportedRun);
  if (!current && unreported) {
    if (unreported.state === 'stopping' || unreported.state === 'ending')
      return pending('The instance is shutting down.', state);
    return earlyExit(start, unreported, state);
  }
  const kept = section.onStop === 'keep' && !current ? findKept(all, section) : undefined;
  const others = all.filter((each) => each !== current && each !== kept);
  if (!(await terminate(parts, others, state.home)))
    return pending('The instance of the last start is shutting down.', state);

  if (current?.volumes.some(({ id }) => id === state.home)) return awaitAgent(start, current, state);
  return stepWithHome(start, { current, kept, ended }, state);
}

async function stepWithHome(
  start: Start,
  { current, kept, ended }: { current?: Machine | undefined; kept?: Machine | undefined; ended: Machine[] },
  state: State,
): Promise<StepResult<Started>> {
  const { parts, spec, section, launch, context, pending } = start;
  const step = await ensureHome(parts, spec, launch.buildId, state, context);
  if ('waitingFor' in step) return pending(step.waitingFor, step.state);
  const { home } = step;
  const known: State = {
    ...step.state,
    directory: homeDirectory(spec.owner),
    size: sizeOf(home),
    onStop: section.onStop,
    snapshots: section.snapshots?.keep,
  };
  const user = home.attachedTo;
  if (current) {
    // Of a step that knew another home.
    if (current.zone !== home.zone) {
      await terminate(parts, [current], state.home);
      return pending('The instance is in another zone than the home.', known);
    }
    if (current.state === 'starting') return pending('The instance is starting.', known);
    if (user === null) await attachHome(parts, home, current);
    else if (user !== current.id) return pending('The home is being detached from the last instance.', known);
    return pending('The virtual machine is booting.', known);
  }
  if (user !== null && user !== kept?.id)
    return pending('The home is being detached from the last instance.', known);
  try {
    const operation = await bringUp(start, kept, ended, home);
    return pending('The instance is starting.', {
      ...known,
      ...begun(operation, launch.buildId, home.zone),
    });
  } catch (error) {
    return afterRefusal(start, known, home.zone, error);
  }
}

/** If the zone has no capacity, and there are no files yet, another zone is tried. */
async function afterRefusal(
  { parts, spec, launch, context, pending }: Start,
  state: State,
  zone: string,
  error: unknown,
): Promise<StepResult<never>> {
  const left = await leaveZone(parts, spec, launch.buildId, state, zone, error, context);
  return pending(left.waitingFor, left.state);
}

const findKept = (all: readonly Machine[], section: CloudSection) =>
  all.find(({ state, labels }) => state === 'stopped' && labels.plan === planOf(section));

/** Starts a new machine, or the kept one. */
async function bringUp(
  { parts, spec, section, launch, context }: Start,
  kept: Machine | undefined,
  ended: readonly Machine[],
  home: Volume,
): Promise<string | undefined> {
  const { cloud, kind, view, certificateAuthorities, graceSeconds } = parts;
  const plan: LaunchPlan = {
    spec,
    launch,
    home,
    boot: bootPlanOf({
      ...{ spec, section, launch, home, certificateAuthorities, graceSeconds },
      disk: cloud.bootDisk(home),
      metadata: kind.remembersUserData,
    }),
    labels: { ...ownLabels(parts, spec, 'instance'), build: launch.buildId, plan: planOf(section) },
    earlier: ended.map(({ id }) => id),
  };
  try {
    if (kept) return (await cloud.restart(kept, plan))?.operation;
    const { operation } = await cloud.launch(plan, context);
    if (canBeRoot(section)) context.log('programs of the workspace can become root inside its instance');
    return operation;
  } finally {
    view.changed();
  }
}

/** Waits for the agent of a machine that has its home. */
async function awaitAgent(start: Start, current: Machine, state: State): Promise<StepResult<Started>> {
  const { parts, spec, launch, context, pending } = start;
  const { cloud, homes, now, maxBootMs } = parts;
  const run = runOf(current);
  if (state.run !== run) {
    if (!(await parts.hasRegistered(launch.buildId))) {
      const age = now().getTime() - (current.startedAt?.getTime() ?? 0);
      if (age <= maxBootMs) return pending('The virtual machine is booting.', state);
      return bootTimeout(start, current, state);
    }
    // From now on, a volume without a file system is a lost home.
    const home = await homes.find(spec.workspaceId, state.home);
    if (home) await cloud.labelVolume(home, { used: 'true' });
    context.log(`agent started in the instance ${current.id}`);
  }
  const { restoring: _, isUnused: _u, ...kept } = settled(state);
  return {
    kind: 'done',
    state: writeState({ ...kept, run }),
    isolation: cloud.describeIsolation(spec, current),
  };
}

async function bootTimeout(
  { parts, launch, context }: Start,
  current: Machine,
  state: State,
): Promise<StepResult<never>> {
  const console = await parts.cloud.console(current);
  logConsole(console, context);
  // It costs money as long as it exists.
  await terminate(parts, [current], state.home);
  parts.view.changed();
  return {
    kind: 'failed',
    state: writeState({ ...state, reportedRun: runOf(current) }),
    error: {
      code: 'instance-boot-timeout',
      message: `The agent has not reached the server within ${Math.round(parts.maxBootMs / 60_000)} minutes. The instance was terminated.`,
      detail: console || 'The instance wrote nothing to its serial console.',
      hint: `Its console is above. It has to reach ${launch.serverUrl}.`,
      fault: 'system',
    },
  };
}

function logConsole(console: string, context: StepContext): void {
  if (console === '') return;
  context.log('The end of its serial console:', 'warn');
  for (const line of console.split('\n').slice(-60)) context.log(line, 'warn');
}

async function earlyExit(
  { parts: { cloud, kind }, context }: Start,
  found: Machine,
  state: State,
): Promise<StepResult<never>> {
  const console = await cloud.console(found);
  const end = await cloud.explainEnd(found, console);
  logConsole(console, context);
  const next = writeState({ ...state, reportedRun: runOf(found) });
  if (end.cause === 'node-refused' || end.cause === 'preempted')
    return {
      kind: 'failed',
      state: next,
      error: {
        code: kind.codes.noCapacity,
        message: `The workspace ${end.text}.`,
        detail: found.reason,
        hint: 'Start the workspace again later, or choose another size of machine or zone.',
        fault: 'system',
      },
    };
  const error = describeEarlyExit(
    end,
    console,
    `Choose a larger machine in the template's section ${kind.name}.`,
  );
  return { kind: 'failed', state: next, error };
}
