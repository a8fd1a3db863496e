import type { Duplex } from 'node:stream';
import type { PortVisit } from '@cde/tunnel/streams/visits.ts';
import type { Activity } from './activity.ts';
import { makeInputClassifier } from './editor-input.ts';

/** Requests at regular intervals are polling. Two intervals may differ by this much. */
const toleranceShare = 0.2;
const toleranceMs = 1000;
/** Tabs with the same page poll at different moments; more tabs than this look like a person. */
const maxTabs = 4;
const maxTimes = 3 + maxTabs;
/** A request that follows the end of the same request at once, if that took this long, is a long poll. */
const longPollMs = 5000;
const followsWithinMs = 500;
/** Paths that are remembered; the oldest is dropped. */
const maxPaths = 500;

interface Path {
  times: number[];
  /** When the last long request ended. */
  longEndAt: number;
}

interface PortVisits {
  /** A proxy of shared ports has opened a stream to a port. */
  opened(port: number, visit: PortVisit, client: Duplex, target: Duplex): void;
}

/**
 * Distinguishes people who use a shared port from pages that are merely open: requests at regular intervals, long polls, event
 * streams and idle WebSockets do not count. Satellites do not know the visitor's name; such a visit is by the port.
 */
export function makePortVisits(activity: Activity): PortVisits {
  const { now } = activity;
  const paths = new Map<string, Path>();
  const sockets = new Map<string, ReturnType<typeof makeInputClassifier>>();

  function pathOf(key: string): Path {
    const path = paths.get(key) ?? { times: [], longEndAt: Number.NEGATIVE_INFINITY };
    paths.delete(key);
    paths.set(key, path);
    const [oldest] = paths.keys();
    if (paths.size > maxPaths) paths.delete(oldest!);
    return path;
  }

  return {
    opened(port, { kind, key, username }, client, target) {
      const by = username ?? `port ${port}`;
      const record = () => activity.record('port-visit', by);
      if (kind === 'other') return;
      if (kind === 'socket') {
        const id = `${port} ${by}`;
        const classifier = sockets.get(id) ?? makeInputClassifier({ onInput: record, now });
        sockets.delete(id);
        sockets.set(id, classifier);
        const [oldest] = sockets.keys();
        if (sockets.size > maxPaths) sockets.delete(oldest!);
        client.on('data', (chunk: Buffer) => classifier.upstream(chunk.length));
        target.on('data', () => classifier.downstream());
        return;
      }
      const at = now();
      const path = pathOf(`${port} ${by} ${key}`);
      // Of all paths: a page may put a counter into the path of each poll.
      const every = pathOf(`${port} ${by}`);
      for (const { times } of [path, every]) {
        times.push(at);
        if (times.length > maxTimes) times.shift();
      }
      client.once('close', () => {
        if (now() - at >= longPollMs) path.longEndAt = now();
      });
      if (at - path.longEndAt <= followsWithinMs || isPeriodic(path.times)) return;
      if (kind === 'request' && isPeriodic(every.times)) return;
      record();
    },
  };
}

/** Whether the last three intervals are about the same, of one tab or of one of several. */
function isPeriodic(times: readonly number[]): boolean {
  const last = times.length - 1;
  for (let tabs = 1; tabs <= maxTabs && last - 1 - tabs >= 1; tabs += 1) {
    const intervals = [0, 1, 2].map(
      (back) => times[last - back]! - (times[last - back - tabs] ?? Number.NaN),
    );
    const [interval, ...others] = intervals as [number, ...number[]];
    const perTab = interval / tabs;
    const tolerance = Math.min(perTab / 2, Math.max(toleranceMs, perTab * toleranceShare));
    if (others.every((other) => Math.abs(other - interval) <= tolerance)) return true;
  }
  return false;
}
