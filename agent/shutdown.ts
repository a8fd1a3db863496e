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
/** The server sends a request again at once until it has the answer. */
const openPauseMs = 5_000;
/** Between two polls, in case the server answers at once. */
const pauseMs = 500;
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
  /** Sends the script's output, which must not arrive after the answer: then the workspace stops. */
  deliverLog: () => Promise<void>;
  signal: AbortSignal;
  clock?: Clock;
}): Shutdown {
  const { client, activity, work, print, signal, clock = systemClock } = options;
  const answered = new Set<string>();
  /** Requests that are being answered or wait for that. */
  const open = new Set<{ canVeto: boolean; superseded: AbortController }>();
  let last = Promise.resolve();

  async function prepare(request: ShutdownRequest, ended: AbortSignal): Promise<void> {
    const { id, idleSinceAgeMs } = request;
    const since = idleSinceAgeMs === null ? null : clock.now() - idleSinceAgeMs + clockDriftMs;
    const isVetoed = () => {
      const ageMs = since === null ? null : activity.latestAgeMs();
      return ageMs !== null && clock.now() - ageMs > since!;
    };
    let isVetoPrinted = false;
    const printVeto = (when: string) => {
      if (!isVetoPrinted) print(`The stop was cancelled: there was activity ${when}.`);
      isVetoPrinted = true;
    };
    await work.sample();
    if (ended.aborted) return;
    let end: Pick<ScriptEnd, 'exitCode' | 'timedOut'> = { exitCode: null, timedOut: false };
    if (request.script !== null && !isVetoed()) {
      end = await runScript({ ...request, script: request.script }, isVetoed, ended);
      if (ended.aborted) return;
      if (isVetoed()) printVeto('while the shutdown script ran');
    }
    // Decided in each attempt: a person may become active while the server is unreachable.
    const answer = async () => {
      await options.deliverLog();
      const veto = isVetoed();
      if (veto) printVeto('after it was decided');
      const report = activity.report();
      await client.call(postAgentShutdown, {
        body: veto
          ? { id, state: 'vetoed', activity: report }
          : { id, state: 'ready', activity: report, exitCode: end.exitCode, timedOut: end.timedOut },
      });
    };
    await retryTransient(answer, { signal: ended, clock }).catch((error: Error) => {
      if (!ended.aborted) print(`The server did not accept the answer to its stop request: ${error.message}`);
    });
  }

  /** Runs the script until it ends, or until there is activity that vetoes the stop. */
  async function runScript(
    { script, timeoutMs }: { script: string; timeoutMs: number },
    isVetoed: () => boolean,
    ended: AbortSignal,
  ): Promise<Pick<ScriptEnd, 'exitCode' | 'timedOut'>> {
    const vetoed = new AbortController();
    // The script's own work is no reason to stay.
    const resume = work.pause();
    const unobserve = activity.observe(() => {
      if (isVetoed()) vetoed.abort();
    });
    try {
      return await options.runScript({
        script,
        timeoutMs,
        signal: AbortSignal.any([ended, vetoed.signal]),
      });
    } catch (error) {
      print(`The shutdown script cannot be run: ${(error as Error).message}`);
      return { exitCode: null, timedOut: false };
    } finally {
      unobserve();
      await resume();
    }
  }

  function handle(request: ShutdownRequest) {
    if (answered.has(request.id) || signal.aborted) return;
    answered.add(request.id);
    const [oldest] = answered;
    if (answered.size > maxAnswered) answered.delete(oldest!);
    const canVeto = request.idleSinceAgeMs !== null;
    // A stop that nothing can veto does not wait for one that may be cancelled.
    if (!canVeto) for (const each of open) if (each.canVeto) each.superseded.abort();
    const entry = { canVeto, superseded: new AbortController() };
    open.add(entry);
    last = last
      .then(() => prepare(request, AbortSignal.any([signal, entry.superseded.signal])))
      .catch((error: Error) => {
        // The server sends the request again.
        answered.delete(request.id);
        print(`The stop cannot be prepared: ${error.message}`);
      })
      .finally(() => open.delete(entry));
  }

  return {
    handle,
    async watch(longPollClient) {
      let failures = 0;
      while (!signal.aborted) {
        try {
          const { shutdown } = await longPollClient.call(awaitShutdown, { signal });
          failures = 0;
          if (shutdown) handle(shutdown);
          // Not until it is answered: its script may run for minutes, and a stop that nothing can veto may be requested meanwhile.
          await clock.sleep(shutdown ? openPauseMs : pauseMs, signal);
        } catch {
          failures += 1;
          await clock.sleep(backoff(failures, clock.random), signal);
        }
      }
    },
    get isPending() {
      return open.size > 0;
    },
  };
}
