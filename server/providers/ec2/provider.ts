import type { Log } from '@cde/tunnel/log.ts';
import { ProviderFailure } from '../failure.ts';
import type { Observation, Provider, ProviderState, StepContext, StepResult } from '../provider.ts';
import {
  type Ec2Address,
  type Ec2Client,
  isRefusal,
  isThrottled,
  isUnreachable,
  isWithoutCredentials,
  makeEc2Client,
  messageOf,
} from './client.ts';
import { explainEnd } from './ends.ts';
import { makeHomes } from './homes.ts';
import { isOn, makeInstanceView, observedMaxAgeMs, runOf, stateOf } from './instances.ts';
import { makeEc2Nodes } from './nodes.ts';
import { makeObjects } from './objects.ts';
import type { Ec2Parts } from './parts.ts';
import { refusal } from './refusal.ts';
import { startStep } from './start.ts';
import { readState, type State, writeState } from './state.ts';
import { keepVolumes, removeStep, stopStep } from './stop.ts';
import { makeSurroundings } from './surroundings.ts';

export interface Ec2ProviderOptions {
  address: Ec2Address;
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
  /** How often instances are listed while nothing is asked. */
  pollMs?: number;
  /** How long steps wait for what takes seconds. */
  retryMs?: number;
  log: Log;
  now?: () => Date;
}

const throttledRetryMs = 5_000;

/** Workspaces as virtual machines on Amazon EC2. */
export function makeEc2Provider(options: Ec2ProviderOptions): Provider {
  const { address, installation, log, now = () => new Date(), retryMs = 2_000 } = options;
  let opening: Promise<Ec2Client> | undefined;
  const client = () => {
    opening ??= makeEc2Client(address).catch((error) => {
      opening = undefined;
      throw error;
    });
    return opening;
  };
  const listeners: ((workspaceId: string) => void)[] = [];
  const view = makeInstanceView({
    client,
    installation,
    pollMs: options.pollMs ?? 10_000,
    onChange: (workspaceId) => {
      for (const listener of listeners) listener(workspaceId);
    },
    log,
  });
  const surroundings = makeSurroundings(installation);
  const homes = async () => makeHomes(await client(), installation);

  /** What a step waits for, in words, if a call failed only for now; null: it failed for good. */
  function passing(error: unknown): string | null {
    if (isThrottled(error))
      return 'AWS limits how many requests this account makes: the next attempt follows.';
    if (isUnreachable(error)) return `EC2 does not answer: ${messageOf(error)}.`;
    return null;
  }

  async function onEc2<Done>(
    remembered: ProviderState,
    context: StepContext,
    step: (parts: Ec2Parts, state: State) => Promise<StepResult<Done>>,
  ): Promise<StepResult<Done>> {
    const state = readState(remembered);
    try {
      const opened = await client();
      const parts: Ec2Parts = {
        client: opened,
        installation,
        region: address.region,
        view,
        homes: makeHomes(opened, installation),
        surroundings,
        hasRegistered: options.hasRegistered,
        certificateAuthorities: options.certificateAuthorities ?? null,
        graceSeconds: options.graceSeconds ?? 10,
        maxBootMs: options.maxBootMs ?? 10 * 60_000,
        retryMs,
        log,
        now,
      };
      return await step(parts, state);
    } catch (error) {
      if (error instanceof ProviderFailure) return { kind: 'failed', state: remembered, error: error.error };
      const text = passing(error);
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
      if (!isRefusal(error) && !isWithoutCredentials(error)) throw error;
      log.warn({ err: error }, 'ec2 provider: EC2 refused a call');
      return { kind: 'failed', state: remembered, error: refusal(error) };
    }
  }

  return {
    name: 'ec2',

    async start(spec, launch, remembered, context) {
      if (!spec.template.ec2)
        return {
          kind: 'failed',
          state: remembered,
          error: { code: 'template-invalid', message: 'The template has no section "ec2".', fault: 'user' },
        };
      return onEc2(remembered, context, (parts, state) => startStep(parts, spec, launch, state, context));
    },

    stop: (workspaceId, remembered, context) =>
      onEc2(remembered, context, (parts, state) => stopStep(parts, workspaceId, state)),

    remove: (workspaceId, remembered, home, context) =>
      onEc2(remembered, context, (parts, state) => removeStep(parts, workspaceId, state, home)),

    async observe(workspaceId, remembered): Promise<Observation> {
      const { run, home } = readState(remembered);
      try {
        const found = await view.of(workspaceId, observedMaxAgeMs);
        const alive = found.find((each) => isOn(each) || stateOf(each) === 'stopping');
        if (alive) {
          // Someone changed it: without that, a termination deletes the home.
          await keepVolumes({ client: await client() }, alive, home);
          return { kind: 'running' };
        }
        if (run === undefined)
          return { kind: 'gone', cause: 'missing', message: 'The workspace has no instance.' };
        const ended = found.find((each) => runOf(each) === run);
        if (!ended)
          return { kind: 'gone', cause: 'removed', message: 'The instance was removed, not by cde.' };
        const { cause, text } = await explainEnd(await client(), ended);
        return { kind: 'gone', cause, message: `The agent ${text}.` };
      } catch (error) {
        const text = passing(error);
        if (text === null && !isRefusal(error) && !isWithoutCredentials(error)) throw error;
        return { kind: 'unknown', message: text ?? `EC2 does not answer: ${messageOf(error)}.` };
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
        if (passing(error) === null && !isRefusal(error) && !isWithoutCredentials(error)) throw error;
        log.warn({ err: error }, 'ec2 provider: retained homes could not be purged');
        return { purged: [], incomplete: true };
      }
    },

    objects: makeObjects({ client, installation, homes, view }),
    nodes: makeEc2Nodes({ client, view, region: address.region }),
    onChange: (listener) => void listeners.push(listener),

    async close() {
      view.close();
      listeners.length = 0;
      (await opening)?.destroy();
    },
  };
}
