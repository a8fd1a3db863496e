import type { Log } from '@cde/tunnel/log.ts';
import type { IncusAddress } from '../../incus-address.ts';
import type { AgentSource } from '../agent-files.ts';
import { makeBackgroundWork } from '../background.ts';
import { ProviderFailure } from '../failure.ts';
import type { Observation, Provider, ProviderState, StepContext, StepResult } from '../provider.ts';
import { makeAgentVolumes } from './agent-volume.ts';
import { type IncusClient, isBusy, isUnreachable, makeIncusClient, messageOf, statusOf } from './client.ts';
import { watchInstances } from './events.ts';
import { readExit } from './exit.ts';
import { makeHomes } from './homes.ts';
import { hasRun, type Kind } from './instance.ts';
import { makeObjects } from './objects.ts';
import { hasEnded } from './operations.ts';
import type { About, IncusParts } from './parts.ts';
import { refusal } from './refusal.ts';
import { startStep } from './start.ts';
import { readState, type State, writeState } from './state.ts';
import { findInstance, removeStep, stopStep } from './stop.ts';

export interface IncusProviderOptions {
  address: IncusAddress;
  /** Marks what belongs to this server; the same for all its replicas. */
  installation: string;
  agent: AgentSource;
  /** The folder with the server's sockets, if Incus is on the same machine. */
  gatewayFolder: string | null;
  /** How long an agent has to end when asked to. */
  graceSeconds?: number;
  log: Log;
  now?: () => Date;
}

const unreachableRetryMs = 3_000;
const busyRetryMs = 300;

interface ServerInfo {
  auth: string;
  environment: {
    server_version: string;
    server_name: string;
    server_pid: number;
    server_clustered: boolean;
    driver: string;
    architectures: string[];
  };
}

/** Workspaces as virtual machines or system containers of an Incus server. */
export function makeIncusProvider(options: IncusProviderOptions): Provider {
  const { installation, log, now = () => new Date() } = options;
  let opening: Promise<IncusClient> | undefined;
  const client = () => {
    opening ??= makeIncusClient(options.address).catch((error) => {
      opening = undefined;
      throw error;
    });
    return opening;
  };
  const agentVolumes = makeAgentVolumes(options.agent, installation);
  const background = makeBackgroundWork();
  const progress = new Map<string, string>();
  const listeners: ((workspaceId: string) => void)[] = [];
  const wake = (workspaceId: string) => {
    for (const listener of listeners) listener(workspaceId);
  };
  const watch = watchInstances({ client, installation, onChange: wake, log });

  async function onServer<Done>(
    remembered: ProviderState,
    context: StepContext,
    step: (parts: IncusParts, state: State) => Promise<StepResult<Done>>,
  ): Promise<StepResult<Done>> {
    const state = readState(remembered);
    try {
      const opened = await client();
      const parts: IncusParts = {
        client: opened,
        about: await describeServer(opened),
        installation,
        homes: makeHomes(opened, installation),
        agentVolumes,
        gatewayFolder: options.gatewayFolder,
        background,
        wake,
        progress,
        graceSeconds: options.graceSeconds ?? 10,
        log,
        now,
      };
      return await step(parts, state);
    } catch (error) {
      if (error instanceof ProviderFailure) return { kind: 'failed', state: remembered, error: error.error };
      if (isBusy(error)) return { kind: 'pending', state: remembered, retryAfterMs: busyRetryMs };
      if (isUnreachable(error)) {
        const text = `The Incus server does not answer: ${messageOf(error)}.`;
        if (state.waitingFor !== text) context.log(text, 'warn');
        return {
          kind: 'pending',
          state: writeState({ ...state, waitingFor: text }),
          retryAfterMs: unreachableRetryMs,
          message: text,
        };
      }
      if (statusOf(error) === undefined) throw error;
      log.warn({ err: error }, 'incus provider: the server refused a call');
      return { kind: 'failed', state: remembered, error: refusal(error) };
    }
  }

  async function objects() {
    const opened = await client();
    return makeObjects({
      client: opened,
      installation,
      homes: makeHomes(opened, installation),
      agentVolumes,
    });
  }

  return {
    name: 'incus',

    async start(spec, launch, remembered, context) {
      if (!spec.template.incus)
        return {
          kind: 'failed',
          state: remembered,
          error: { code: 'template-invalid', message: 'The template has no section "incus".', fault: 'user' },
        };
      return onServer(remembered, context, (parts, state) => startStep(parts, spec, launch, state, context));
    },

    stop: (workspaceId, remembered, context) =>
      onServer(remembered, context, (parts, state) => stopStep(parts, workspaceId, state)),

    remove: (workspaceId, remembered, home, context) =>
      onServer(remembered, context, (parts, state) => removeStep(parts, workspaceId, state, home)),

    async observe(workspaceId, remembered): Promise<Observation> {
      const { run, home } = readState(remembered);
      try {
        const opened = await client();
        const found = await findInstance({ client: opened }, workspaceId, home?.project);
        if (found?.status === 'Error')
          return { kind: 'unknown', message: `The instance is on ${found.location}, which does not answer.` };
        if (found && (await hasEnded(opened, found))) {
          const { cause, text } = await readExit(opened, found);
          return { kind: 'gone', cause, message: `The agent ${text}.` };
        }
        if (found && (found.status !== 'Stopped' || hasRun(found))) return { kind: 'running' };
        return run === undefined
          ? { kind: 'gone', cause: 'missing', message: 'The workspace has no instance.' }
          : { kind: 'gone', cause: 'removed', message: 'The instance was removed, not by cde.' };
      } catch (error) {
        if (!isUnreachable(error) && statusOf(error) === undefined) throw error;
        return { kind: 'unknown', message: `The Incus server does not answer: ${messageOf(error)}.` };
      }
    },

    describeHome(remembered) {
      const { directory, size } = readState(remembered);
      return { ...(directory !== undefined && { directory }), ...(size !== undefined && { size }) };
    },

    async purgeHomes(selection) {
      try {
        return await makeHomes(await client(), installation).purge(selection);
      } catch (error) {
        if (!isUnreachable(error) && statusOf(error) === undefined) throw error;
        log.warn({ err: error }, 'incus provider: retained homes could not be purged');
        return { purged: [], incomplete: true };
      }
    },

    objects: {
      list: async () => (await objects()).list(),
      remove: async (object) => (await objects()).remove(object),
      adopt: async (home, workspaceId, retainedAt) => (await objects()).adopt(home, workspaceId, retainedAt),
    },

    onChange: (listener) => void listeners.push(listener),

    async close() {
      watch.close();
      listeners.length = 0;
      await background.settled();
      await (await opening)?.close();
    },
  };
}

/** Asked at each step, because the server may have been restarted or updated. */
async function describeServer(client: IncusClient): Promise<About> {
  const { auth, environment } = await client.get<ServerInfo>('/1.0');
  if (auth !== 'trusted')
    throw new ProviderFailure({
      code: 'incus-not-authorized',
      message: 'The Incus server does not know the certificate of this server.',
      hint: 'Add it there: incus config trust add-certificate client.crt.',
      fault: 'system',
    });
  const kinds: Kind[] = [];
  if (environment.driver.includes('lxc')) kinds.push('container');
  if (environment.driver.includes('qemu')) kinds.push('virtual-machine');
  return {
    version: environment.server_version,
    architectures: environment.architectures,
    kinds,
    isClustered: environment.server_clustered,
    process: `${environment.server_name}:${environment.server_pid}`,
  };
}
