import type { Log } from '@cde/tunnel/log.ts';
import { type Cloud, type Machine, runOf } from './cloud.ts';

/** How old what an observation sees can be. */
export const observedMaxAgeMs = 5_000;
/** How old what a step sees can be. Steps of many workspaces share a call. */
const stepMaxAgeMs = 1_000;
const maxDelayMs = 120_000;

interface Listing {
  /** When the call that it comes from began. */
  at: number;
  byWorkspace: Map<string, Machine[]>;
  all: Machine[];
}

/**
 * All machines of this installation, from one paged call that everything shares: clouds limit the rate of calls of an
 * account, so there is never one for each workspace.
 */
export function makeMachineView(options: {
  cloud: () => Promise<Cloud>;
  /** Of the provider, for the log. */
  name: string;
  pollMs: number;
  onChange: (workspaceId: string) => void;
  log: Log;
  now?: () => number;
}) {
  const { pollMs, log, now = () => performance.now() } = options;
  let last: Listing | null = null;
  let asking: { at: number; answer: Promise<Listing> } | null = null;
  /** Answers to calls that began before it are outdated. */
  let changedAt = Number.NEGATIVE_INFINITY;
  let known = new Map<string, Machine>();
  let closed = false;
  let timer: NodeJS.Timeout | undefined;

  async function ask(at: number): Promise<Listing> {
    const all = await (await options.cloud()).machines();
    const byWorkspace = Map.groupBy(all, ({ labels }) => labels.workspace ?? '');
    const answer = { at, byWorkspace, all };
    if (!last || last.at <= at) {
      last = answer;
      announce(answer);
    }
    return answer;
  }

  function announce({ all }: Listing): void {
    const current = new Map(all.map((each) => [runOf(each), each]));
    const changed = all.filter((each) => known.get(runOf(each))?.state !== each.state);
    // On some clouds, what was deleted is missing at once.
    const missing = [...known].filter(([run, { state }]) => state !== 'gone' && !current.has(run));
    known = current;
    const workspaces = new Set(
      [...changed, ...missing.map(([, each]) => each)].map(({ labels }) => labels.workspace),
    );
    for (const workspaceId of workspaces) if (workspaceId && !closed) options.onChange(workspaceId);
  }

  /** At most so old, and not from before the last change by this server. */
  async function list(maxAgeMs: number): Promise<Listing> {
    const isFresh = (at: number) => at > changedAt && now() - at <= maxAgeMs;
    if (last && isFresh(last.at)) return last;
    if (asking && isFresh(asking.at)) return asking.answer;
    const at = now();
    const answer = ask(at).finally(() => {
      if (asking?.answer === answer) asking = null;
    });
    asking = { at, answer };
    return answer;
  }

  let delayMs = pollMs;
  function poll(): void {
    list(0)
      .then(
        () => {
          delayMs = pollMs;
        },
        (error) => {
          // Of a rate limit too: then it helps to ask less.
          delayMs = Math.min(delayMs * 2, maxDelayMs);
          if (!closed)
            log.debug({ err: error }, `${options.name} provider: the machines could not be listed`);
        },
      )
      .finally(() => {
        if (closed) return;
        timer = setTimeout(poll, delayMs);
        timer.unref();
      });
  }
  poll();

  return {
    list,
    /** Those of a workspace, also deleted ones that the cloud still shows. */
    async of(workspaceId: string, maxAgeMs = stepMaxAgeMs): Promise<Machine[]> {
      return (await list(maxAgeMs)).byWorkspace.get(workspaceId) ?? [];
    },
    /** Something was changed, so the next caller asks again. */
    changed(): void {
      changedAt = now();
    },
    close(): void {
      closed = true;
      clearTimeout(timer);
    },
  };
}

export type MachineView = ReturnType<typeof makeMachineView>;
