import type { Contention } from './contention.ts';
import type { KubeNode } from './node.ts';
import { appliesTo } from './plan.ts';
import type { PassResult, Reconciler } from './reconcile.ts';
import {
  diffPatch,
  driftsOf,
  eventsOf,
  lastReport,
  makeReport,
  type NodeReport,
  type NodeView,
} from './report.ts';
import type { Profiles } from './source.ts';

export interface Daemon {
  /** True while the loop runs. */
  healthy(): boolean;
  /** True once the node's labels have been read and updated. */
  ready(): boolean;
  /** Finishes what is in progress and ends. Kernel and labels stay, because an update of noded is no reason to move workspaces. */
  stop(): Promise<void>;
}

const messageOf = (state: object | undefined) => state && 'message' in state && state.message;

interface Log {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

/** How often the kernel is read: some small files. Not every change is notified (watch.ts). */
const reconcileMs = 2_000;
/** After a change was notified. A program that writes without pause must not keep noded busy. */
const minPassIntervalMs = 20;
/** How soon observations are reported and new profiles are applied. */
const loopMs = 500;
/** How often the node is read, for labels that others change. Random, so that the nodes of a cluster do not all ask at once. */
const nodeMs = 60_000;
/** A label is removed at once. It is added again, and messages are changed, at most this often. */
const minPatchIntervalMs = 10_000;
/** A pass that takes longer hangs: modprobe gets 20 s for each module. */
const hangMs = 120_000;
/** Events in ten minutes: more would say nothing new. */
const maxEvents = 10;

/** Maintains the kernel parameters of one node and reports their state on the node. */
export function startDaemon({
  source,
  reconciler,
  node,
  contention,
  watchWrites = () => ({ follow: () => {}, close: () => {} }),
  hasNewInterfaces = () => false,
  log,
  onPass = () => {},
}: {
  source: { read(): Profiles };
  reconciler: Reconciler;
  node: KubeNode;
  contention: Contention;
  /** Watches what is maintained for writes of other programs. */
  watchWrites?: (onWrite: () => void) => { follow(sysctls: readonly string[]): void; close(): void };
  /** Whether the node's network interfaces have changed since the last call. */
  hasNewInterfaces?: () => boolean;
  log: Log;
  onPass?: (pass: PassResult | null, fault: string | null) => void;
}): Daemon {
  let known: NodeView | null = null;
  let knownAt = 0;
  let askAgainMs = 0;
  let patchedAt = Number.NEGATIVE_INFINITY;
  /** While the cluster is unreachable, it is polled at the pace of patches. */
  let callAgainAt = 0;
  let told: NodeReport | null | undefined;
  let loggedFault: string | null = null;
  let passedAt = performance.now();
  let events: number[] = [];
  let stopped = false;
  const failures = new Set<string>();
  /** Logs each problem once, until it is over. */
  function warnOnce(what: string, error: unknown): void {
    if (failures.has(what)) return;
    failures.add(what);
    log.warn({ err: (error as Error).message }, what);
  }

  async function reconcile(): Promise<void> {
    const { profiles, fault } = source.read();
    if (fault !== loggedFault) {
      if (fault) log.warn({ fault }, 'The file of profiles is invalid; the last valid one stays in force');
      else log.info({}, 'The file of profiles is valid again');
      loggedFault = fault;
    }
    if (!known) return;
    const { labels } = known;
    const pass = profiles
      ? await reconciler.pass(profiles.filter((profile) => appliesTo(profile, labels)))
      : null;
    const next = makeReport(pass, fault, told === undefined ? lastReport(known) : told, new Date());
    for (const [name, state] of pass?.states ?? []) {
      const before = told?.profiles[name];
      const after = next?.profiles[name];
      const isSame = before?.since === after?.since && messageOf(before) === messageOf(after);
      if (told && isSame) continue;
      if (state.state === 'ready') log.info({ profile: name }, 'The kernel profile is applied');
      else log.warn({ profile: name, reason: state.reason }, state.message);
    }
    for (const [sysctl, why] of pass?.left ?? []) if (!told?.left?.[sysctl]) log.warn({ sysctl }, why);
    told = next;
    writes.follow(pass?.maintained ?? []);
    onPass(pass, fault);
  }

  async function report(): Promise<void> {
    if (performance.now() < callAgainAt) return;
    if (!known || performance.now() - knownAt > askAgainMs) {
      const isFirst = known === null;
      known = await node.get();
      if (isFirst) contention.recall(driftsOf(known));
      knownAt = performance.now();
      askAgainMs = nodeMs * (0.75 + Math.random() / 2);
      failures.delete(unread);
    }
    if (told === undefined) return;
    const patch = diffPatch(known, told);
    if (!patch) return;
    const takes = Object.values(patch.labels).includes(null);
    if (!takes && performance.now() - patchedAt < minPatchIntervalMs) return;
    const news = eventsOf(known, told);
    patchedAt = performance.now();
    try {
      known = await node.patch(patch);
    } catch (error) {
      // The node was changed in the meantime: it is read again.
      askAgainMs = 0;
      throw error;
    }
    failures.delete(untold);
    for (const event of news) {
      events = events.filter((at) => performance.now() - at < 600_000);
      if (events.length >= maxEvents) break;
      events.push(performance.now());
      await node.event(known, event).catch((error) => warnOnce('The cluster rejected an event', error));
    }
  }
  const unread = 'The node cannot be read from the cluster';
  const untold = 'The node cannot be updated in the cluster';

  /** Independent of each other: an unreachable cluster must not keep noded from repairing the kernel. */
  function every(ms: number, work: () => Promise<void>, failed: (error: unknown) => void) {
    let timer: NodeJS.Timeout | undefined;
    let running: Promise<void> | null = null;
    let endedAt = Number.NEGATIVE_INFINITY;
    let isUrgent = false;
    const urgentDelay = () => Math.max(0, endedAt + minPassIntervalMs - performance.now());
    const turn = () => {
      isUrgent = false;
      running = work()
        .catch(failed)
        .finally(() => {
          running = null;
          endedAt = performance.now();
          if (!stopped) timer = setTimeout(turn, isUrgent ? urgentDelay() : ms);
        });
    };
    turn();
    return {
      /** Takes the next turn soon. */
      hurry() {
        if (stopped || isUrgent) return;
        isUrgent = true;
        if (running) return;
        clearTimeout(timer);
        timer = setTimeout(turn, urgentDelay());
      },
      async stop() {
        clearTimeout(timer);
        await running;
      },
    };
  }
  let isWritten = false;
  const writes = watchWrites(() => {
    isWritten = true;
    looking.hurry();
  });
  const reporting = every(loopMs, report, (error) => {
    warnOnce(known ? untold : unread, error);
    callAgainAt = performance.now() + minPatchIntervalMs * (0.5 + Math.random());
  });
  const lookFailed = 'The kernel cannot be checked';
  const looking = every(
    loopMs,
    async () => {
      const isDue = known === null || told === undefined || performance.now() - passedAt >= reconcileMs;
      if (!hasNewInterfaces() && !isWritten && !isDue) return;
      isWritten = false;
      await reconcile();
      failures.delete(lookFailed);
      passedAt = performance.now();
    },
    (error) => warnOnce(lookFailed, error),
  );

  return {
    healthy: () => performance.now() - passedAt < hangMs,
    ready: () => known !== null && told !== undefined && diffPatch(known, told) === null,
    async stop() {
      stopped = true;
      writes.close();
      await Promise.all([reporting.stop(), looking.stop()]);
    },
  };
}
