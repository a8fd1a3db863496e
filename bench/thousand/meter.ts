/**
 * Loaded into a server with `--import`: measures the calls to the API server at CDE_BENCH_API (`HOST:PORT`) as Node's
 * HTTP client sends them, the watches, memory, event loop and CPU time. Controlled by IPC: `{meter: 'begin'}` resets all
 * counters, and `{meter: 'end'}` is answered with a Measured.
 */
import { subscribe } from 'node:diagnostics_channel';
import { writeFileSync } from 'node:fs';
import type { ClientRequest, IncomingMessage } from 'node:http';
import { Session } from 'node:inspector/promises';
import { constants, monitorEventLoopDelay, PerformanceObserver } from 'node:perf_hooks';
import { getHeapStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

export interface Measured {
  /** Calls by `VERB Resource`, such as `apply secrets`. */
  calls: Record<string, number>;
  /** Responses with status 400 or above, by `STATUS VERB Resource`. */
  refused: Record<string, number>;
  /** Watches by resource: open now, maximum open at once, and opened in total. */
  watches: Record<string, { open: number; most: number; opened: number }>;
  rssPeak: number;
  heapPeak: number;
  /** Bytes alive after a full garbage collection. */
  heapLive: number;
  /** How late a timer fires, in milliseconds. */
  loop: { p50: number; p99: number; max: number };
  /** The maximum CPU milliseconds of the main thread between two turns of its loop: blocking, whatever else the machine does. */
  blockCpuMs: number;
  /** The longest garbage collections in wall-clock time, and their total. */
  collections: { minorMs: number; majorMs: number; sumMs: number };
  cpuMs: number;
  wallMs: number;
  /** The total time of all calls except watches. Divided by wallMs: the average number of calls in flight. */
  callMs: number;
}
type Ask = { meter: 'begin'; profile?: string } | { meter: 'end' };

const resolutionMs = 5;

export function loopDelay() {
  const delay = monitorEventLoopDelay({ resolution: resolutionMs });
  delay.enable();
  const over = (nanoseconds: number) => Math.max(0, nanoseconds / 1e6 - resolutionMs);
  return {
    reset: () => delay.reset(),
    read: () => ({ p50: over(delay.percentile(50)), p99: over(delay.percentile(99)), max: over(delay.max) }),
  };
}

/** The verb and resource of a request: `/api/v1/namespaces/x/pods?watch=true` is `watch pods`. */
function classify(method: string, path: string, contentType: string): [verb: string, resource: string] {
  const { pathname, searchParams } = new URL(path, 'http://api');
  const parts = pathname.split('/').filter(Boolean);
  const place = parts[0] === 'api' ? parts.slice(2) : parts.slice(3);
  if (place.length === 0) return ['discover', parts.join('/')];
  const [resource, name, sub] = place[0] === 'namespaces' && place.length > 2 ? place.slice(2) : place;
  const what = sub ? `${resource}/${sub}` : resource!;
  if (searchParams.get('watch') === 'true') return ['watch', what];
  if (method === 'GET') return [name ? 'get' : 'list', what];
  if (method === 'PATCH') return [contentType.includes('apply-patch') ? 'apply' : 'patch', what];
  return [method === 'POST' ? 'create' : 'delete', what];
}

function install(api: string): void {
  const loop = loopDelay();
  const kinds = new WeakMap<ClientRequest, [string, string]>();
  const watches: Measured['watches'] = {};
  let calls: Measured['calls'] = {};
  let refused: Measured['refused'] = {};
  let callMs = 0;
  let rssPeak = 0;
  let heapPeak = 0;
  let cpu = process.cpuUsage();
  let began = performance.now();
  let session: Session | null = null;
  let profile = '';
  const count = (into: Record<string, number>, key: string) => {
    into[key] = (into[key] ?? 0) + 1;
  };

  subscribe('http.client.request.start', (message) => {
    const { request } = message as { request: ClientRequest };
    if (request.getHeader('host') !== api) return;
    // Ignore the time before the first call, when the process loads its code and nothing waits for it.
    if (!hasCalled) {
      hasCalled = true;
      turnedAt = process.threadCpuUsage();
      blockCpuMs = 0;
    }
    const kind = classify(request.method, request.path, String(request.getHeader('content-type') ?? ''));
    kinds.set(request, kind);
    count(calls, kind.join(' '));
    const sent = performance.now();
    if (kind[0] !== 'watch')
      return void request.once('close', () => {
        callMs += performance.now() - sent;
      });
    watches[kind[1]] ??= { open: 0, most: 0, opened: 0 };
    const watch = watches[kind[1]]!;
    watch.open++;
    watch.opened++;
    watch.most = Math.max(watch.most, watch.open);
    request.once('close', () => watch.open--);
  });
  subscribe('http.client.response.finish', (message) => {
    const { request, response } = message as { request: ClientRequest; response: IncomingMessage };
    const kind = kinds.get(request);
    if (kind && (response.statusCode ?? 0) >= 400) count(refused, `${response.statusCode} ${kind.join(' ')}`);
  });
  let hasCalled = false;
  let blockCpuMs = 0;
  let collections = { minorMs: 0, majorMs: 0, sumMs: 0 };
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      const { duration, detail } = entry as PerformanceEntry & { detail: { kind: number } };
      const which = detail.kind === constants.NODE_PERFORMANCE_GC_MINOR ? 'minorMs' : 'majorMs';
      collections[which] = Math.max(collections[which], duration);
      collections.sumMs += duration;
    }
  }).observe({ entryTypes: ['gc'] });
  let turnedAt = process.threadCpuUsage();
  setInterval(() => {
    const { user, system } = process.threadCpuUsage(turnedAt);
    turnedAt = process.threadCpuUsage();
    blockCpuMs = Math.max(blockCpuMs, (user + system) / 1000);
  }, resolutionMs).unref();
  setInterval(() => {
    rssPeak = Math.max(rssPeak, process.memoryUsage.rss());
    heapPeak = Math.max(heapPeak, getHeapStatistics().used_heap_size);
  }, 200).unref();

  async function begin(path: string | undefined): Promise<void> {
    if (path) {
      session = new Session();
      session.connect();
      await session.post('Profiler.enable');
      await session.post('Profiler.setSamplingInterval', { interval: 1000 });
      await session.post('Profiler.start');
      profile = path;
    }
    calls = {};
    refused = {};
    callMs = 0;
    for (const watch of Object.values(watches)) Object.assign(watch, { most: watch.open, opened: 0 });
    rssPeak = process.memoryUsage.rss();
    heapPeak = getHeapStatistics().used_heap_size;
    cpu = process.cpuUsage();
    began = performance.now();
    turnedAt = process.threadCpuUsage();
    blockCpuMs = 0;
    collections = { minorMs: 0, majorMs: 0, sumMs: 0 };
    loop.reset();
  }

  async function end(): Promise<Measured> {
    const { user, system } = process.cpuUsage(cpu);
    const measured = {
      ...{ calls, refused, watches: structuredClone(watches), rssPeak, heapPeak },
      ...{
        loop: loop.read(),
        blockCpuMs,
        collections,
        cpuMs: (user + system) / 1000,
        wallMs: performance.now() - began,
        callMs,
      },
    };
    if (session) {
      const { profile: found } = await session.post('Profiler.stop');
      session.disconnect();
      session = null;
      writeFileSync(profile, JSON.stringify(found));
    }
    setFlagsFromString('--expose-gc');
    (runInNewContext('gc') as () => void)();
    return { ...measured, heapLive: getHeapStatistics().used_heap_size };
  }

  process.on('message', (ask: Ask) => {
    if (ask?.meter === 'begin') void begin(ask.profile).then(() => process.send!({ begun: true }));
    if (ask?.meter === 'end') void end().then((measured) => process.send!({ measured }));
  });
}

if (process.env.CDE_BENCH_API && process.send) install(process.env.CDE_BENCH_API);
