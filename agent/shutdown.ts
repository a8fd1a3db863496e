import { awaitShutdown, postAgentShutdown, type ShutdownRequest } from '@cde/api/activity.ts';
import { backoff, type Clock, systemClock } from '@cde/tunnel/clock.ts';
import type { Activity } from './activity/activity.ts';
import type { WorkSampler } from './activity/work/work.ts';
import type { ScriptEnd } from './script.ts';
import { retryTransient, type ServerClient } from './server/client.ts';

/**
 * Only activity that is this much younger than what the decision to stop was based on is a veto: the ages are measured by two
 * clocks, which drift apart by some seconds in a day, and the same keystroke must not veto its own stop forever. What happened
 * in between has been reported before the decision.
 */
const clockDriftMs = 5_000;
/** A request that was answered is sent again until the workspace stops. */
const answeredPauseMs = 5_000;
/** Requests whose answer is remembered. */
const maxAnswered = 16;

export interface Shutdown {
  /** Answers a request, once. */
  handle(request: ShutdownRequest): void;
  /** Waits for requests until the signal is aborted. */
  watch(client: ServerClient): Promise<void>;
  /** True while a request is being answered. */
  readonly isPending: boolean;
}

/**
 * Prepares for a stop when the server asks for it: vetoes it if there was activity that the decision did not know of, up to the
 * last moment; otherwise runs the shutdown script.
 */
export function makeShutdown(options: {
  client: ServerClient;
  activity: Activity;
  work: WorkSampler;
  runScript: (script: { script: string; timeoutMs: number; signal: AbortSignal }) => Promise<ScriptEnd>;
  /** Says in the build log what happened. */
  print: (text: string) => void;
  signal: AbortSignal;
  clock?: Clock;
}): Shutdown {
  const { client, activity, work, signal, clock = systemClock } = options;
  const answered = new Set<string>();
  let pending: Promise<void> | undefined;

  const post = (body: Parameters<typeof send>[0]) =>
    retryTransient(() => send(body), { signal, clock }).catch(() => {});
  const send = (
    body: { id: string } & (
      | { state: 'vetoed'; activity: ReturnType<Activity['report']> }
      | {
          state: 'ready';
          activity: ReturnType<Activity['report']>;
          exitCode: number | null;
          timedOut: boolean;
        }
    ),
  ) => client.call(postAgentShutdown, { body });

  async function prepare({ id, idleSinceAgeMs, script, timeoutMs }: ShutdownRequest): Promise<void> {
    const since = idleSinceAgeMs === null ? null : clock.now() - idleSinceAgeMs + clockDriftMs;
    const isVetoed = () => {
      const ageMs = since === null ? null : activity.latestAgeMs();
      return ageMs !== null && clock.now() - ageMs > since!;
    };
    const veto = (when: string) => {
      options.print(`The stop was cancelled: there was activity ${when}.`);
      return post({ id, state: 'vetoed', activity: activity.report() });
    };
    await work.sample();
    if (isVetoed()) return veto('after it was decided');
    let end: Pick<ScriptEnd, 'exitCode' | 'timedOut'> = { exitCode: null, timedOut: false };
    if (script !== null) {
      const aborted = new AbortController();
      // The script's own work is no reason to stay.
      const resume = work.pause();
      const unobserve = activity.observe(() => {
        if (isVetoed()) aborted.abort();
      });
      const stop = () => aborted.abort();
      signal.addEventListener('abort', stop, { once: true });
      try {
        end = await options.runScript({ script, timeoutMs, signal: aborted.signal });
      } catch (error) {
        options.print(`The shutdown script cannot be run: ${(error as Error).message}`);
      } finally {
        unobserve();
        resume();
        signal.removeEventListener('abort', stop);
      }
      if (signal.aborted) return;
    }
    if (isVetoed()) return veto('while the shutdown script ran');
    await post({
      id,
      state: 'ready',
      activity: activity.report(),
      exitCode: end.exitCode,
      timedOut: end.timedOut,
    });
  }

  function handle(request: ShutdownRequest) {
    if (answered.has(request.id) || signal.aborted) return;
    answered.add(request.id);
    const [oldest] = answered;
    if (answered.size > maxAnswered) answered.delete(oldest!);
    pending = (pending ?? Promise.resolve())
      .then(() => prepare(request))
      .finally(() => {
        pending = undefined;
      });
  }

  return {
    handle,
    async watch(longPollClient) {
      let failures = 0;
      while (!signal.aborted) {
        try {
          const { shutdown } = await longPollClient.call(awaitShutdown, { signal });
          failures = 0;
          if (!shutdown) continue;
          const isKnown = answered.has(shutdown.id);
          handle(shutdown);
          await pending;
          if (isKnown) await clock.sleep(answeredPauseMs, signal);
        } catch {
          failures += 1;
          await clock.sleep(backoff(failures, clock.random), signal);
        }
      }
    },
    get isPending() {
      return pending !== undefined;
    },
  };
}
