import type { Log } from '@cde/tunnel/log.ts';
import type Dockerode from 'dockerode';
import type { EngineAddress } from '../../engine-address.ts';
import { makeBackgroundWork } from '../background.ts';
import { ProviderFailure } from '../failure.ts';
import type {
  Observation,
  Provider,
  ProviderError,
  ProviderState,
  StepContext,
  StepResult,
} from '../provider.ts';
import { type AgentSource, makeAgentVolumes } from './agent-volume.ts';
import { connectEngine, isPodman, isUnreachable, messageOf, orNull, statusOf, versionOf } from './engine.ts';
import { watchContainers } from './events.ts';
import { explainExit } from './exit.ts';
import { makeHomes } from './homes.ts';
import { makeImages } from './images.ts';
import { containerName } from './names.ts';
import { makeDockerNodes } from './nodes.ts';
import { makeObjects } from './objects.ts';
import type { DockerParts } from './parts.ts';
import { startStep } from './start.ts';
import { readState, type State, writeState } from './state.ts';
import { removeStep, stopStep } from './stop.ts';

export interface DockerProviderOptions {
  address: EngineAddress;
  /** Labels what belongs to this server on the engine; the same for all its replicas. */
  installation: string;
  agent: AgentSource;
  /** The folder with the server's sockets, if the engine is on the same machine. */
  gatewayFolder: string | null;
  /** A config.json of Docker with the credentials of registries. */
  credentialsFile?: string | undefined;
  /** How long an agent has to end when asked to. */
  graceSeconds?: number;
  log: Log;
  now?: () => Date;
}

const unreachableRetryMs = 3_000;

/** Workspaces as containers of a Docker engine, or of another that speaks its API. */
export function makeDockerProvider(options: DockerProviderOptions): Provider {
  const { address, installation, log, now = () => new Date() } = options;
  const connection = connectEngine(address);
  const engine = connection.calls;
  const images = makeImages(engine, options.credentialsFile);
  const agentVolumes = makeAgentVolumes(options.agent, installation);
  const background = makeBackgroundWork();
  const listeners: ((workspaceId: string) => void)[] = [];
  const watch = watchContainers({
    engine: connection.streams,
    installation,
    onEnd: (workspaceId) => {
      for (const listener of listeners) listener(workspaceId);
    },
    log,
  });
  let about: Promise<Pick<DockerParts, 'version' | 'hasInit'>> | undefined;

  /** Asked once. If the engine does not answer, the next call tries again. */
  function describeEngine(found: Dockerode) {
    about ??= Promise.all([found.info() as Promise<{ InitBinary?: string }>, versionOf(found)]).then(
      ([{ InitBinary }, version]) => ({
        version,
        // Podman does not say whether it has one.
        hasInit: Boolean(InitBinary) || isPodman(version),
      }),
      (error: unknown) => {
        about = undefined;
        throw error;
      },
    );
    return about;
  }

  async function onEngine<Done>(
    remembered: ProviderState,
    context: StepContext,
    step: (parts: DockerParts, state: State) => Promise<StepResult<Done>>,
  ): Promise<StepResult<Done>> {
    const state = readState(remembered);
    try {
      const found = await engine();
      const parts: DockerParts = {
        engine: found,
        ...(await describeEngine(found)),
        installation,
        homes: makeHomes(found, installation),
        images,
        agentVolumes,
        gatewayFolder: options.gatewayFolder,
        background,
        graceSeconds: options.graceSeconds ?? 10,
        log,
        now,
      };
      return await step(parts, state);
    } catch (error) {
      if (error instanceof ProviderFailure) return { kind: 'failed', state: remembered, error: error.error };
      if (isUnreachable(error)) {
        const text = `The Docker engine does not answer: ${messageOf(error)}.`;
        if (state.waitingFor !== text) context.log(text, 'warn');
        return {
          kind: 'pending',
          state: writeState({ ...state, waitingFor: text }),
          retryAfterMs: unreachableRetryMs,
          message: text,
        };
      }
      if (statusOf(error) === undefined) throw error;
      log.warn({ err: error }, 'docker provider: the engine refused a call');
      return { kind: 'failed', state: remembered, error: refusal(error) };
    }
  }

  async function objects() {
    const found = await engine();
    return makeObjects({ engine: found, installation, homes: makeHomes(found, installation), agentVolumes });
  }

  return {
    name: 'docker',

    async start(spec, launch, remembered, context) {
      if (!spec.template.docker)
        return {
          kind: 'failed',
          state: remembered,
          error: {
            code: 'template-invalid',
            message: 'The template has no section "docker".',
            fault: 'user',
          },
        };
      return onEngine(remembered, context, (parts, state) => startStep(parts, spec, launch, state, context));
    },

    stop: (workspaceId, remembered, context) =>
      onEngine(remembered, context, (parts, state) => stopStep(parts, workspaceId, state)),

    remove: (workspaceId, remembered, home, context) =>
      onEngine(remembered, context, (parts, state) => removeStep(parts, workspaceId, state, home)),

    async observe(workspaceId, remembered): Promise<Observation> {
      const { container } = readState(remembered);
      try {
        const found = await orNull((await engine()).getContainer(containerName(workspaceId)).inspect());
        if (found?.State.Running) return { kind: 'running' };
        if (found && found.State.Status !== 'created') {
          const { cause, text } = explainExit(found);
          return { kind: 'gone', cause, message: `The agent ${text}.` };
        }
        return container === undefined
          ? { kind: 'gone', cause: 'missing', message: 'The workspace has no container.' }
          : { kind: 'gone', cause: 'removed', message: 'The container was removed, not by cde.' };
      } catch (error) {
        if (!isUnreachable(error) && statusOf(error) === undefined) throw error;
        return { kind: 'unknown', message: `The Docker engine does not answer: ${messageOf(error)}.` };
      }
    },

    describeHome(remembered) {
      const { directory } = readState(remembered);
      return directory === undefined ? {} : { directory };
    },

    async purgeHomes(selection) {
      try {
        return await makeHomes(await engine(), installation).purge(selection);
      } catch (error) {
        if (!isUnreachable(error) && statusOf(error) === undefined) throw error;
        log.warn({ err: error }, 'docker provider: retained homes could not be purged');
        return { purged: [], incomplete: true };
      }
    },

    objects: {
      list: async () => (await objects()).list(),
      remove: async (object) => (await objects()).remove(object),
      adopt: async (home, workspaceId, retainedAt) => (await objects()).adopt(home, workspaceId, retainedAt),
    },

    onChange: (listener) => void listeners.push(listener),

    nodes: makeDockerNodes(engine),

    async close() {
      watch.close();
      listeners.length = 0;
      await background.settled();
      connection.close();
    },
  };
}

function refusal(error: unknown): ProviderError {
  const said = messageOf(error);
  if (/no space left|disk quota/i.test(said))
    return {
      code: 'engine-disk-full',
      message: "The Docker engine's disk is full.",
      detail: said,
      hint: 'Free space on it: docker system df shows what uses it.',
      fault: 'system',
    };
  if (/memory limit|minimum memory|cpus|range of CPUs|pids limit/i.test(said))
    return {
      code: 'limits-refused',
      message: "The Docker engine refused the template's limits.",
      detail: said,
      hint: "Change the limits in the template's docker section.",
      fault: 'user',
    };
  return {
    code: 'engine-refused',
    message: 'The Docker engine refused a request.',
    detail: said,
    fault: 'system',
  };
}
