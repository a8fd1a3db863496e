import type { Instance, Volume } from '@aws-sdk/client-ec2';
import type { AgentLaunch, Started, StepContext, StepResult, WorkspaceSpec } from '../provider.ts';
import { describeEarlyExit } from '../vm/agent-exit.ts';
import { accept, codeOf, isNotFound } from './client.ts';
import { consoleTail, explainEnd } from './ends.ts';
import { attachHome, ensureHome, leaveZone } from './ensure-home.ts';
import { attachedTo } from './homes.ts';
import {
  bootData,
  canBeRoot,
  describeIsolation,
  homeDevice,
  homeDirectory,
  type InstancePlan,
  planOf,
  sizeOf,
  workspaceInstance,
} from './instance.ts';
import { buildOf, isOn, runOf, stateOf } from './instances.ts';
import { tagOf, tags, toTags } from './names.ts';
import type { Ec2Parts } from './parts.ts';
import { type State, writeState } from './state.ts';
import { terminate } from './stop.ts';

/** One step towards an instance of `launch.buildId` whose agent has registered. */
export async function startStep(
  parts: Ec2Parts,
  spec: WorkspaceSpec,
  launch: AgentLaunch,
  state: State,
  context: StepContext,
): Promise<StepResult<Started>> {
  const section = spec.template.ec2!;
  const { workspaceId } = spec;
  const pending = (message: string, next: State = state): StepResult<never> => {
    const about = message.split(':')[0]!;
    if (next.waitingFor !== about) context.log(message);
    return {
      kind: 'pending',
      state: writeState({ ...next, waitingFor: about }),
      retryAfterMs: parts.retryMs,
      message,
    };
  };

  const from = spec.restore?.workspaceId;
  // Recorded before the home changes hands, so that a removal can give it back.
  if (from !== undefined && from !== workspaceId && state.restoring === undefined)
    return { kind: 'pending', state: writeState({ ...state, restoring: from }), retryAfterMs: 0 };

  const all = await parts.view.of(workspaceId);
  const own = all.filter((each) => buildOf(each) === launch.buildId);
  const ended = own.filter((each) => !isOn(each));
  const current = own.find(isOn);
  const unreported = ended.find((each) => runOf(each) !== state.run && runOf(each) !== state.reportedRun);
  if (!current && unreported) {
    if (stateOf(unreported) === 'stopping' || stateOf(unreported) === 'shutting-down')
      return pending('The instance is shutting down.');
    return earlyExit(parts, unreported, state, context);
  }
  const kept = section.onStop === 'keep' && !current ? findKept(all, section) : undefined;
  const others = all.filter((each) => each !== current && each !== kept);
  if (!(await terminate(parts, others, state.home)))
    return pending('The instance of the last start is shutting down.');

  if (current && state.home !== undefined && isAttached(current, state.home))
    return awaitAgent(parts, { spec, launch, current, context, pending }, state);

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
  const user = attachedTo(home)?.InstanceId;
  if (current) {
    // Of a step that knew another home.
    if (current.Placement?.AvailabilityZone !== home.AvailabilityZone) {
      await terminate(parts, [current], state.home);
      return pending('The instance is in another zone than the home.', known);
    }
    if (stateOf(current) === 'pending') return pending('The instance is starting.', known);
    if (user === undefined) await attachHome(parts, home, current.InstanceId!, homeDevice);
    else if (user !== current.InstanceId)
      return pending('The home is being detached from the last instance.', known);
    return pending('The virtual machine is booting.', known);
  }
  if (user !== undefined && user !== kept?.InstanceId)
    return pending('The home is being detached from the last instance.', known);
  if (kept) await startKept(parts, spec, launch, kept, home);
  else
    try {
      await run(parts, spec, launch, home, ended, context);
    } catch (error) {
      const left = await leaveZone(
        parts,
        spec,
        launch.buildId,
        known,
        home.AvailabilityZone!,
        error,
        context,
      );
      return pending(left.waitingFor, left.state);
    }
  return pending('The instance is starting.', known);
}

const isAttached = ({ BlockDeviceMappings = [] }: Instance, home: string) =>
  BlockDeviceMappings.some(({ Ebs }) => Ebs?.VolumeId === home && Ebs.Status !== 'detached');

const findKept = (all: readonly Instance[], section: InstancePlan['section']) =>
  all.find((each) => stateOf(each) === 'stopped' && tagOf(each, tags.plan) === planOf(section));

/** Waits for the agent of an instance that has its home. */
async function awaitAgent(
  parts: Ec2Parts,
  at: {
    spec: WorkspaceSpec;
    launch: AgentLaunch;
    current: Instance;
    context: StepContext;
    pending: (message: string, next?: State) => StepResult<never>;
  },
  state: State,
): Promise<StepResult<Started>> {
  const { client, view, now, maxBootMs } = parts;
  const { spec, launch, current, context, pending } = at;
  const run = runOf(current);
  if (state.run !== run) {
    if (!(await parts.hasRegistered(launch.buildId))) {
      const age = now().getTime() - (current.LaunchTime?.getTime() ?? 0);
      if (age <= maxBootMs) return pending('The virtual machine is booting.');
      const console = await consoleTail(client, current);
      logConsole(console, context);
      // It costs money as long as it exists.
      await terminate(parts, [current], state.home);
      view.changed();
      return {
        kind: 'failed',
        state: writeState({ ...state, reportedRun: run }),
        error: {
          code: 'instance-boot-timeout',
          message: `The agent has not reached the server within ${Math.round(maxBootMs / 60_000)} minutes. The instance was terminated.`,
          detail: console || 'The instance wrote nothing to its serial console.',
          hint: `Its console is above. It has to reach ${launch.serverUrl}.`,
          fault: 'system',
        },
      };
    }
    // From now on, a volume without a file system is a lost home.
    await client.createTags({ Resources: [state.home!], Tags: toTags({ [tags.used]: 'true' }) });
    context.log(`agent started in the instance ${current.InstanceId}`);
  }
  const { restoring: _, waitingFor: _w, reportedRun: _r, isUnused: _u, full: _f, ...kept } = state;
  return {
    kind: 'done',
    state: writeState({ ...kept, run }),
    isolation: describeIsolation(spec.template.ec2!, current),
  };
}

/** Starts a new instance. */
async function run(
  parts: Ec2Parts,
  spec: WorkspaceSpec,
  launch: AgentLaunch,
  home: Volume,
  earlier: readonly Instance[],
  context: StepContext,
): Promise<void> {
  const { client, view, surroundings, installation } = parts;
  const section = spec.template.ec2!;
  const image = await surroundings.image(client, section);
  const subnets = await surroundings.subnets(client, section);
  const subnet = subnets.find(({ AvailabilityZone: zone }) => zone === home.AvailabilityZone)!;
  const securityGroups = await surroundings.securityGroups(client, section, subnet.VpcId!);
  const plan: InstancePlan = {
    installation,
    spec,
    section,
    launch,
    home,
    image,
    subnet,
    securityGroups,
    certificateAuthorities: parts.certificateAuthorities,
    graceSeconds: parts.graceSeconds,
  };
  try {
    const { Instances } = await client.runInstances(
      workspaceInstance(
        plan,
        earlier.map(({ InstanceId }) => InstanceId!),
      ),
    );
    context.log(
      `instance ${Instances?.[0]?.InstanceId}: ${section.instanceType} in ${home.AvailabilityZone}, image ${image.id}`,
    );
    if (canBeRoot(section)) context.log('programs of the workspace can become root inside its instance');
  } catch (error) {
    // The call was made before, by a server with other settings: its instance appears in the next list.
    if (codeOf(error) === 'IdempotentParameterMismatch') return;
    if (isNotFound(error)) surroundings.forget();
    throw error;
  } finally {
    view.changed();
  }
}

/** Starts a kept instance with the user data of this build. */
async function startKept(
  parts: Ec2Parts,
  spec: WorkspaceSpec,
  launch: AgentLaunch,
  kept: Instance,
  home: Volume,
) {
  const { client, view } = parts;
  const InstanceId = kept.InstanceId!;
  const data = bootData({ ...parts, spec, section: spec.template.ec2!, launch, home });
  const isChanged = await accept(
    client.modifyInstanceAttribute({ InstanceId, UserData: { Value: data } }),
    'IncorrectInstanceState',
  );
  if (isChanged) {
    // The build last: killed before it, the next step replaces what this one began.
    await client.startInstances({ InstanceIds: [InstanceId] });
    await client.createTags({ Resources: [InstanceId], Tags: toTags({ [tags.build]: launch.buildId }) });
  }
  view.changed();
}

function logConsole(console: string, context: StepContext): void {
  if (console === '') return;
  context.log('The end of its serial console:', 'warn');
  for (const line of console.split('\n').slice(-60)) context.log(line, 'warn');
}

async function earlyExit(
  { client }: Ec2Parts,
  found: Instance,
  state: State,
  context: StepContext,
): Promise<StepResult<never>> {
  const end = await explainEnd(client, found);
  logConsole(end.console, context);
  const next = writeState({ ...state, reportedRun: runOf(found) });
  if (end.cause === 'node-refused' || end.cause === 'preempted')
    return {
      kind: 'failed',
      state: next,
      error: {
        code: 'aws-no-capacity',
        message: `The workspace ${end.text}.`,
        detail: found.StateReason?.Message ?? '',
        hint: 'Start the workspace again later, or choose another instance type or zone.',
        fault: 'system',
      },
    };
  const error = describeEarlyExit(end, end.console, 'Choose a larger ec2.instanceType in the template.');
  return { kind: 'failed', state: next, error };
}
