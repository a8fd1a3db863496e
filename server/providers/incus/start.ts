import { ProviderFailure } from '../failure.ts';
import { enteredLine } from '../prepare/enter-plan.ts';
import type { AgentLaunch, Started, StepContext, StepResult, WorkspaceSpec } from '../provider.ts';
import { describeEarlyExit } from '../vm/agent-exit.ts';
import { agentUnit } from '../vm/unit.ts';
import type { IncusClient } from './client.ts';
import { createInstance, kindOf, launchInstance } from './create.ts';
import { ensureHome } from './ensure-home.ts';
import { logTail, readExit } from './exit.ts';
import {
  canBeRoot,
  describeIsolation,
  homeDirectory,
  type Instance,
  maxProcesses,
  runOf,
} from './instance.ts';
import { consoleTail, launchInMachine } from './launch.ts';
import { keys } from './names.ts';
import { hasEnded } from './operations.ts';
import type { IncusParts } from './parts.ts';
import { type State, writeState } from './state.ts';
import { endInstance, findInstance } from './stop.ts';
import { findSurroundings } from './surroundings.ts';

/** How often what comes without an event is looked for: that the agent runs is only in a file of the instance, which costs a process. */
const pollMs = 250;
/** A system that boots longer than this hangs. */
const maxBootMs = 5 * 60_000;

/** One step towards an instance of `launch.buildId` whose agent runs. */
export async function startStep(
  parts: IncusParts,
  spec: WorkspaceSpec,
  launch: AgentLaunch,
  state: State,
  context: StepContext,
): Promise<StepResult<Started>> {
  const { client } = parts;
  const section = spec.template.incus!;
  const { workspaceId } = spec;
  const pending = (message?: string, next: State = state): StepResult<never> => {
    const about = message?.split(':')[0];
    if (message && next.waitingFor !== about) context.log(message);
    return {
      kind: 'pending',
      state: writeState({ ...next, ...(about && { waitingFor: about }) }),
      retryAfterMs: message ? 500 : pollMs,
      ...(message && { message }),
    };
  };

  const from = spec.restore?.workspaceId;
  // Recorded before the home changes hands, so that a removal can give it back.
  if (from !== undefined && from !== workspaceId && state.restoring === undefined)
    return { kind: 'pending', state: writeState({ ...state, restoring: from }), retryAfterMs: 0 };
  const found = await findInstance(parts, workspaceId, state.home?.project ?? section.project);
  if (found && found.config[keys.build] !== launch.buildId) {
    await endInstance(parts, found);
    return pending();
  }
  if (found && (await hasEnded(client, found))) {
    if (state.run !== runOf(found) && state.reportedRun !== runOf(found))
      return earlyExit(client, found, state);
    await endInstance(parts, found);
    return pending();
  }

  const kind = kindOf(parts, section.type);
  const { home, size } = await ensureHome(parts, spec, state, context);
  const known: State = {
    ...state,
    home,
    directory: homeDirectory(spec.owner),
    ...(size !== undefined && { size }),
  };
  const unit = agentUnit({
    enter: {
      owner: spec.owner,
      user: String(section.user),
      home: homeDirectory(spec.owner),
      hostname: spec.name,
      hasSudo: section.allowPrivilegeEscalation,
    },
    serverUrl: launch.serverUrl,
    hasGateway: parts.gatewayFolder !== null && kind === 'container',
    canBeRoot: canBeRoot(section),
    processes: maxProcesses(section),
    graceSeconds: parts.graceSeconds,
  });

  if (found && isUp(found)) {
    const run = runOf(found);
    if (state.run !== run) {
      const waiting = await agentOf(parts, found, launch, unit);
      if (waiting) return pending(waiting.message, known);
      context.log(`agent started in the instance ${found.name}`);
    }
    const { restoring: _, waitingFor: _w, reportedRun: _r, ...kept } = known;
    const { nic } = await findSurroundings(client, section);
    return {
      kind: 'done',
      state: writeState({ ...kept, run }),
      isolation: describeIsolation(section, kind, { version: parts.about.version, nic }),
    };
  }
  const waiting = found
    ? await launchInstance(parts, found, { launch, unit, kind })
    : await createInstance(parts, { spec, launch, kind, home }, context);
  return pending(waiting ?? undefined, known);
}

const isUp = ({ status }: Instance) => ['Running', 'Ready', 'Frozen'].includes(status);

/** What a running instance is waited for; null: its agent runs. */
async function agentOf(
  parts: IncusParts,
  found: Instance,
  launch: AgentLaunch,
  unit: string,
): Promise<{ message?: string } | null> {
  const { client } = parts;
  const printed = await logTail(client, found);
  if (printed.includes(enteredLine)) return null;
  const age = parts.now().getTime() - Date.parse(found.last_used_at);
  if (age > maxBootMs)
    throw new ProviderFailure({
      code: 'instance-boot-timeout',
      message: `The instance has not started the agent within ${maxBootMs / 60_000} minutes.`,
      detail: (await consoleTail(client, found)) || 'It wrote nothing to its console.',
      hint: 'See with incus console what it does.',
      fault: 'system',
    });
  if (found.type === 'container' || printed !== '') return {};
  const isLaunched = await parts.background.result(`enter ${found.project}/${found.name}`, () =>
    launchInMachine(client, found, launch, unit),
  );
  return isLaunched?.value ? {} : { message: 'The virtual machine is booting.' };
}

async function earlyExit(client: IncusClient, found: Instance, state: State): Promise<StepResult<never>> {
  const tail = await logTail(client, found);
  const exit = await readExit(client, found);
  return {
    kind: 'failed',
    state: writeState({ ...state, reportedRun: runOf(found) }),
    error: describeEarlyExit(exit, tail, "Raise the template's limit incus.memory."),
  };
}
