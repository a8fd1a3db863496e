import type { Instance } from '@aws-sdk/client-ec2';
import type { Log } from '@cde/tunnel/log.ts';
import type { Ec2Client } from './client.ts';
import { tagOf, tags, withTag } from './names.ts';

/** How old what an observation sees can be. */
export const observedMaxAgeMs = 5_000;
/** How old what a step sees can be. Steps of many workspaces share a call. */
const stepMaxAgeMs = 1_000;
const maxDelayMs = 120_000;

export const stateOf = ({ State }: Instance): string => State?.Name ?? 'pending';
export const isGone = (instance: Instance): boolean =>
  stateOf(instance) === 'terminated' || stateOf(instance) === 'shutting-down';
export const isOn = (instance: Instance): boolean =>
  stateOf(instance) === 'running' || stateOf(instance) === 'pending';
export const workspaceOf = (instance: Instance): string | null => tagOf(instance, tags.workspace) ?? null;
export const buildOf = (instance: Instance): string | undefined => tagOf(instance, tags.build);
/** Names one boot of an instance: a kept one boots again, for another build. */
export const runOf = (instance: Instance): string => `${instance.InstanceId} ${buildOf(instance)}`;

interface Snapshot {
  /** When the call that it comes from began. */
  at: number;
  byWorkspace: Map<string, Instance[]>;
  all: Instance[];
}

/**
 * All instances of this installation, from one paged call that everything shares: EC2 limits the rate of calls of the
 * account, so there is never one for each workspace.
 */
export function makeInstanceView(options: {
  client: () => Promise<Ec2Client>;
  installation: string;
  pollMs: number;
  onChange: (workspaceId: string) => void;
  log: Log;
  now?: () => number;
}) {
  const { installation, pollMs, log, now = () => performance.now() } = options;
  let last: Snapshot | null = null;
  let asking: { at: number; answer: Promise<Snapshot> } | null = null;
  /** Answers to calls that began before it are outdated. */
  let changedAt = Number.NEGATIVE_INFINITY;
  let known = new Map<string, string>();
  let closed = false;
  let timer: NodeJS.Timeout | undefined;

  async function ask(at: number): Promise<Snapshot> {
    const client = await options.client();
    const all: Instance[] = [];
    let NextToken: string | undefined;
    do {
      const page = await client.describeInstances({
        Filters: [withTag(tags.installation, installation)],
        MaxResults: 1000,
        ...(NextToken !== undefined && { NextToken }),
      });
      for (const { Instances = [] } of page.Reservations ?? []) all.push(...Instances);
      NextToken = page.NextToken;
    } while (NextToken);
    const byWorkspace = Map.groupBy(all, (instance) => workspaceOf(instance) ?? '');
    const answer = { at, byWorkspace, all };
    if (!last || last.at <= at) {
      last = answer;
      announce(answer);
    }
    return answer;
  }

  function announce({ all }: Snapshot): void {
    const current = new Map(all.map((each) => [runOf(each), stateOf(each)]));
    const changed = new Set<string>();
    for (const instance of all)
      if (known.get(runOf(instance)) !== stateOf(instance)) changed.add(workspaceOf(instance) ?? '');
    known = current;
    for (const workspaceId of changed) if (workspaceId && !closed) options.onChange(workspaceId);
  }

  /** At most so old, and not from before the last change by this server. */
  async function list(maxAgeMs: number): Promise<Snapshot> {
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
          if (!closed) log.debug({ err: error }, 'ec2 provider: the instances could not be listed');
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
    /** Those of a workspace, also terminated ones, which EC2 shows for about an hour. */
    async of(workspaceId: string, maxAgeMs = stepMaxAgeMs): Promise<Instance[]> {
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

export type InstanceView = ReturnType<typeof makeInstanceView>;
