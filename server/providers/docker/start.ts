import type Dockerode from 'dockerode';
import { pack } from 'tar-stream';
import { ProviderFailure } from '../failure.ts';
import { enteredLine, findEnterFailure, tokenFile } from '../prepare/enter-plan.ts';
import type { AgentLaunch, Started, StepContext, StepResult, WorkspaceSpec } from '../provider.ts';
import { type ContainerPlan, canBeRoot, describeIsolation, homeOf, workspaceContainer } from './container.ts';
import { accept, isPodman, messageOf, orNull, statusOf } from './engine.ts';
import { explainExit, logTail, runOf } from './exit.ts';
import { containerName, homeVolume, labels } from './names.ts';
import { ensureNetwork } from './networks.ts';
import type { DockerParts } from './parts.ts';
import { type State, writeState } from './state.ts';
import { endContainer } from './stop.ts';

/** An agent that ended sooner than this never worked; its build fails with what it said. */
const earlyExitMs = 5_000;
const pollMs = 100;

/** One step towards a container of `launch.buildId` whose agent runs. */
export async function startStep(
  parts: DockerParts,
  spec: WorkspaceSpec,
  launch: AgentLaunch,
  state: State,
  context: StepContext,
): Promise<StepResult<Started>> {
  const { engine, homes, images } = parts;
  const section = spec.template.docker!;
  const { workspaceId } = spec;
  const pending = (message?: string, next: State = state): StepResult<never> => {
    if (message && next.waitingFor === undefined) context.log(message);
    return {
      kind: 'pending',
      state: writeState({ ...next, ...(message && { waitingFor: message.split(':')[0]! }) }),
      retryAfterMs: message ? 500 : pollMs,
      ...(message && { message }),
    };
  };

  const from = spec.restore?.workspaceId;
  // Recorded before the home changes hands, so that a removal can give it back.
  if (from !== undefined && from !== workspaceId && state.restoring === undefined)
    return { kind: 'pending', state: writeState({ ...state, restoring: from }), retryAfterMs: 0 };
  const container = engine.getContainer(containerName(workspaceId));
  const found = await orNull(container.inspect());
  const isOurBuild = found?.Config.Labels[labels.build] === launch.buildId;
  if (found && !isOurBuild) {
    await endContainer(parts, container, found);
    return pending();
  }
  const exited = found?.State.Status === 'exited' || found?.State.Status === 'dead';
  if (found && exited) {
    const { lived } = runOf(found);
    if (lived < earlyExitMs && state.reportedRun !== runOf(found).id)
      return earlyExit(container, found, state);
    await accept(container.remove({ force: true }), 404, 409);
    return pending();
  }

  const home = await ensureHome(parts, spec, state, context);
  const known: State = { ...state, home, directory: homeOf(spec.owner) };
  const image = await images.ensure(section.image, section.pullPolicy, launch.buildId);
  if ('waitingFor' in image) return pending(image.waitingFor, known);
  const plan: Omit<ContainerPlan, 'agentVolume' | 'network' | 'hasInit'> = {
    installation: parts.installation,
    spec,
    section,
    launch,
    home,
    imageUser: image.user,
    gatewayFolder: parts.gatewayFolder,
  };
  const started = (id: string): StepResult<Started> => ({
    kind: 'done',
    state: writeState({ container: id, home, directory: homeOf(spec.owner) }),
    isolation: describeIsolation(plan, parts.version),
  });

  if (found?.State.Running) {
    if (state.container === found.Id) return started(found.Id);
    if (!(await logTail(container)).includes(enteredLine)) return pending(undefined, known);
    context.log(`agent started in the container ${found.Id.slice(0, 12)}`);
    return started(found.Id);
  }
  if (found) {
    await launchContainer(container, launch.token);
    return pending(undefined, known);
  }

  const { agentVolumes } = parts;
  if (agentVolumes.image !== null) {
    const agentImage = await images.ensure(agentVolumes.image, 'IfNotPresent', launch.buildId);
    if ('waitingFor' in agentImage) return pending(agentImage.waitingFor, known);
  }
  const agentVolume = await parts.background.result('agent volume', () =>
    agentVolumes.ensure(engine, section.image, parts.now()),
  );
  if (!agentVolume?.value) return pending('The agent is being copied to the Docker engine.', known);
  const network = await ensureNetwork(engine, parts.installation, workspaceId);
  logPlan(spec, plan, context);
  if (isPodman(parts.version)) context.log('Podman may forward between the networks of workspaces', 'warn');
  const wanted = { ...plan, agentVolume: agentVolume.value, network };
  const create = (hasInit: boolean) => engine.createContainer(workspaceContainer({ ...wanted, hasInit }));
  try {
    await create(parts.hasInit).catch((error) => {
      if (!/init binary not found/i.test(messageOf(error))) throw error;
      context.log('Podman has no init to end what the agent leaves behind: install catatonit there', 'warn');
      return create(false);
    });
  } catch (error) {
    // Another replica was first.
    if (statusOf(error) === 409) return pending(undefined, known);
    throw error;
  }
  if (!(await homes.exists(home))) {
    // It was removed just now, and Docker has made an empty one.
    await accept(container.remove({ force: true }), 404);
    throw homeLost();
  }
  await launchContainer(container, launch.token);
  return pending(undefined, known);
}

function logPlan(
  spec: WorkspaceSpec,
  plan: Pick<ContainerPlan, 'section' | 'imageUser'>,
  context: StepContext,
) {
  context.log(`image ${plan.section.image}`);
  if (canBeRoot(plan)) context.log('programs of the workspace can become root inside its container');
  if (spec.template.home.size)
    context.log(`home.size ${spec.template.home.size}: Docker does not limit volumes`, 'warn');
}

/** The volume of the home: that of the workspace, restored, or a new one. A home that existed is never replaced. */
async function ensureHome(
  { homes }: DockerParts,
  { workspaceId, owner, name, restore }: WorkspaceSpec,
  state: State,
  context: StepContext,
): Promise<string> {
  if (restore && !(await homes.restore(restore.workspaceId, workspaceId))) throw homeLost();
  const volume = await homes.volumeOf(workspaceId);
  if (await homes.exists(volume)) return volume;
  if (state.home !== undefined || volume !== homeVolume(workspaceId) || restore) throw homeLost();
  await homes.create(workspaceId, { owner, name });
  context.log(`home: volume ${volume} created`);
  return volume;
}

const homeLost = () =>
  new ProviderFailure({
    code: 'home-lost',
    message: 'The volume of the home is no longer on the Docker engine.',
    detail: 'No empty home is put in its place.',
    hint: 'Restore the volume from a backup under its name, or delete this workspace.',
    fault: 'system',
  });

/** Gives the container its token and starts it. Can be repeated. */
async function launchContainer(container: Dockerode.Container, token: string): Promise<void> {
  const archive = pack();
  archive.entry({ name: tokenFile, mode: 0o400 }, token);
  archive.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of archive) chunks.push(chunk as Buffer);
  await container.putArchive(Buffer.concat(chunks), { path: '/' });
  try {
    await accept(container.start(), 304);
  } catch (error) {
    throw notRunnable(messageOf(error)) ?? error;
  }
}

/** The failure of an image that cannot run the agent's Node, by what the engine or its init says; null: another reason. */
function notRunnable(said: string): ProviderFailure | null {
  if (!/exec .*(no such file|exec format)/is.test(said)) return null;
  const isFormat = /exec format/i.test(said);
  return new ProviderFailure({
    code: isFormat ? 'wrong-architecture' : 'image-not-supported',
    message: isFormat
      ? 'The image is for another processor than the server, whose agent it has to run.'
      : 'The image has no glibc, which the agent needs.',
    detail: said.trim(),
    hint: 'Use another image, or set CDE_DOCKER_AGENT_IMAGE to an agent image that fits (docker/Dockerfile, target agent).',
    fault: 'user',
  });
}

async function earlyExit(
  container: Dockerode.Container,
  found: Dockerode.ContainerInspectInfo,
  state: State,
): Promise<StepResult<never>> {
  const tail = await logTail(container);
  const said = findEnterFailure(tail);
  const { cause, text } = explainExit(found);
  const reported = { ...state, reportedRun: runOf(found).id };
  const unsupported = notRunnable(tail);
  if (unsupported) return { kind: 'failed', state: writeState(reported), error: unsupported.error };
  if (said)
    return {
      kind: 'failed',
      state: writeState(reported),
      error: { ...said, fault: 'user' },
    };
  const isOutOfMemory = cause === 'out-of-memory';
  return {
    kind: 'failed',
    state: writeState(reported),
    error: {
      code: isOutOfMemory ? 'agent-out-of-memory' : 'agent-died',
      message: `The agent ${text} right after its start.`,
      detail: tail.trim() || 'It printed nothing.',
      hint: isOutOfMemory
        ? "Raise the template's limit docker.memory."
        : 'Its last lines are above; start the workspace again when their cause is gone.',
      fault: isOutOfMemory ? 'user' : 'system',
    },
  };
}
