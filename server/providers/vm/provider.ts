import type { Log } from '@cde/tunnel/log.ts';
import { ProviderFailure } from '../failure.ts';
import type { Observation, Provider, ProviderState, Removed, StepContext, StepResult } from '../provider.ts';
import { type Cloud, type CloudKind, isOn, runOf } from './cloud.ts';
import { makeHomes } from './homes.ts';
import { makeMachineView, observedMaxAgeMs } from './machine-view.ts';
import { makeCloudNodes } from './nodes.ts';
import { makeObjects } from './objects.ts';
import type { CloudParts } from './parts.ts';
import { removeHome } from './remove-home.ts';
import { startStep } from './start.ts';
import { readState, type State, writeState } from './state.ts';
import { keepHome, stopStep } from './stop.ts';

export interface CloudProviderOptions {
  /** Marks what belongs to this server; the same for all its replicas. */
  installation: string;
  /** Whether the agent of a build has registered with a server. */
  hasRegistered: (buildId: string) => Promise<boolean>;
  /** PEM of the authorities that machines trust beside the public ones. */
  certificateAuthorities?: string | undefined;
  /** How long an agent has to end when asked to. */
  graceSeconds?: number;
  /** How long a machine may take from its launch until its agent has registered. */
  maxBootMs?: number;
  /** How often machines are listed while nothing is asked. */
  pollMs?: number;
  /** How long steps wait for what takes seconds. */
  retryMs?: number;
  log: Log;
  now?: () => Date;
}

const throttledRetryMs = 5_000;

/** Workspaces as virtual machines in a cloud. `connect` loads its client, which only servers that use it need. */
export function makeCloudProvider(
  kind: CloudKind,
  connect: () => Promise<Cloud>,
  options: CloudProviderOptions,
): Provider {
  const { installation, log, now = () => new Date(), retryMs = 2_000 } = options;
  let opening: Promise<Cloud> | undefined;
  const cloud = () => {
    opening ??= connect().catch((error) => {
      opening = undefined;
      throw error;
    });
    return opening;
  };
  const listeners: ((workspaceId: string) => void)[] = [];
  const view = makeMachineView({
    cloud,
    name: kind.name,
    pollMs: options.pollMs ?? 10_000,
    onChange: (workspaceId) => {
      for (const listener of listeners) listener(workspaceId);
    },
    log,
  });
  const homes = async () => makeHomes(await cloud(), installation);

  async function step<Done>(
    remembered: ProviderState,
    context: StepContext,
    take: (parts: CloudParts, state: State) => Promise<StepResult<Done>>,
  ): Promise<StepResult<Done>> {
    const state = readState(remembered);
    try {
      const opened = await cloud();
      const parts: CloudParts = {
        kind,
        cloud: opened,
        installation,
        view,
        homes: makeHomes(opened, installation),
        hasRegistered: options.hasRegistered,
        certificateAuthorities: options.certificateAuthorities ?? null,
        graceSeconds: options.graceSeconds ?? 10,
        maxBootMs: options.maxBootMs ?? 10 * 60_000,
        retryMs,
        log,
        now,
      };
      return await take(parts, state);
    } catch (error) {
      if (error instanceof ProviderFailure) return { kind: 'failed', state: remembered, error: error.error };
      const text = kind.passing(error);
      if (text !== null) {
        const about = text.split(':')[0]!;
        if (state.waitingFor !== about) context.log(text, 'warn');
        return {
          kind: 'pending',
          state: writeState({ ...state, waitingFor: about }),
          // Not all at once.
          retryAfterMs: Math.round(
            Math.max(retryMs, Math.min(throttledRetryMs, retryMs * 3)) * (1 + Math.random() / 2),
          ),
          message: text,
        };
      }
      if (!kind.isRefusal(error)) throw error;
      log.warn({ err: error }, `${kind.name} provider: a call was refused`);
      return { kind: 'failed', state: remembered, error: kind.refusal(error) };
    }
  }

  async function remove(
    parts: CloudParts,
    workspaceId: string,
    state: State,
    home: 'keep' | 'discard',
  ): Promise<StepResult<Removed>> {
    const stopped = await stopStep(parts, workspaceId, { ...state, snapshots: undefined }, 'terminate');
    if (stopped.kind !== 'done') return { ...stopped, state: writeState(state) };
    return removeHome({
      ...{ homes: parts.homes, workspaceId, state, home, retryMs, now: now() },
      stopped: stopped.state,
    });
  }

  return {
    name: kind.name,

    async start(spec, launch, remembered, context) {
      if (!kind.sectionOf(spec))
        return {
          kind: 'failed',
          state: remembered,
          error: {
            code: 'template-invalid',
            message: `The template has no section "${kind.name}".`,
            fault: 'user',
          },
        };
      return step(remembered, context, (parts, state) => startStep(parts, spec, launch, state, context));
    },

    stop: (workspaceId, remembered, context) =>
      step(remembered, context, (parts, state) => stopStep(parts, workspaceId, state)),

    remove: (workspaceId, remembered, home, context) =>
      step(remembered, context, (parts, state) => remove(parts, workspaceId, state, home)),

    async observe(workspaceId, remembered): Promise<Observation> {
      const { run, home } = readState(remembered);
      try {
        const found = await view.of(workspaceId, observedMaxAgeMs);
        const alive = found.find((each) => isOn(each) || each.state === 'stopping');
        if (alive) {
          // Someone changed it: without that, the end of the machine deletes the home.
          await keepHome({ cloud: await cloud() }, alive, home);
          return { kind: 'running' };
        }
        if (run === undefined)
          return { kind: 'gone', cause: 'missing', message: 'The workspace has no instance.' };
        const ended = found.find((each) => runOf(each) === run);
        if (!ended)
          return { kind: 'gone', cause: 'removed', message: 'The instance was removed, not by cde.' };
        const opened = await cloud();
        const { cause, text } = await opened.explainEnd(ended, await opened.console(ended));
        return { kind: 'gone', cause, message: `The agent ${text}.` };
      } catch (error) {
        const text = kind.passing(error);
        if (text === null && !kind.isRefusal(error)) throw error;
        return { kind: 'unknown', message: text ?? `${kind.title} does not answer: ${messageOf(error)}.` };
      }
    },

    describeHome(remembered) {
      const { directory, size } = readState(remembered);
      return { ...(directory !== undefined && { directory }), ...(size !== undefined && { size }) };
    },

    async purgeHomes(selection) {
      try {
        return await (await homes()).purge(selection);
      } catch (error) {
        if (kind.passing(error) === null && !kind.isRefusal(error)) throw error;
        log.warn({ err: error }, `${kind.name} provider: retained homes could not be purged`);
        return { purged: [], incomplete: true };
      }
    },

    objects: makeObjects({ cloud, homes, view }),
    nodes: makeCloudNodes({ kind, cloud, view }),
    onChange: (listener) => void listeners.push(listener),

    async close() {
      view.close();
      listeners.length = 0;
      await (await opening)?.close();
    },
  };
}

const messageOf = (error: unknown): string => (error as Error).message?.trim() || String(error);
