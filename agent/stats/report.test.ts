import { postAgentStats } from '@cde/api/agent.ts';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { until } from '../../tests/kit/until.ts';
import { type Activity, makeActivity } from '../activity/activity.ts';
import { makeServerClient } from '../server/client.ts';
import { makeTestServer, type TestServer, token } from '../testing.ts';
import { type Reporter, reportStats } from './report.ts';

const minute = 60_000;
const idle = (stopsInMs: number) => ({
  stopsInMs,
  cause: 'idle' as const,
  warnBeforeMs: [],
  extendable: true,
  shutdown: null,
});

let server: TestServer;
let stopping: AbortController;
let now: number;
let reporter: Reporter;
let failures: number;
let activity: Activity;
beforeEach(async () => {
  now = 0;
  failures = 0;
  activity = makeActivity({ now: () => now });
  server = await makeTestServer();
  server.idle = idle(60 * minute);
  stopping = new AbortController();
  reporter = reportStats({
    activity,
    collector: {
      sample: async () => ({
        at: new Date().toISOString(),
        cpuPercent: 0,
        load1: 0,
        memoryUsedBytes: 0,
        memoryLimitBytes: null,
        homeUsedBytes: null,
        homeTotalBytes: null,
        homeFreeBytes: null,
        homeFullPercent: null,
        openPorts: [],
        sessions: [],
        satellites: [],
      }),
    },
    client: makeServerClient({ urls: server.url, token }),
    everyMs: () => 3600_000,
    signal: stopping.signal,
    onFailure() {
      failures += 1;
    },
    now: () => now,
  });
  await until(() => server.stats.length === 1 && reporter.idle(), 'the first report');
});
afterEach(async () => {
  stopping.abort();
  await server.close();
});

/** Reports once, and returns the signals in the report, or the revision if nothing is new. */
async function report(): Promise<string[]> {
  const { length } = server.stats;
  now += minute;
  reporter.reportSoon();
  await until(() => server.stats.length > length && reporter.idle()?.ageMs === 0, 'a report');
  const { activity } = server.stats.at(-1)!;
  if ('same' in activity!) return [activity.same];
  return activity!.signals.map(({ signal }) => signal);
}

test('a report has only the signals that are new since the one before', async () => {
  activity.record('terminal-input', 'ada');
  activity.record('process-cpu', 'make');
  expect(await report()).toEqual(['terminal-input', 'process-cpu']);
  expect(await report()).toEqual([]);
  // Found later than it occurred, as by a sample.
  activity.record('build', 'docker', 90_000);
  expect(await report()).toEqual(['build']);
});

test('a report has all signals if the server may not have recorded the one before', async () => {
  activity.record('terminal-input', 'ada');
  await report();
  const all = expect.arrayContaining(['terminal-input']);
  // The connection is lost after the server has taken the report.
  server.answer(postAgentStats.path, -1);
  reporter.reportSoon();
  await until(() => failures === 1, 'a failure');
  expect(await report()).toEqual(all);
  expect(await report()).toEqual([]);
  // A server that has recorded no activity does not say when the workspace stops.
  server.idle = undefined;
  const { length } = server.stats;
  reporter.reportSoon();
  await until(() => server.stats.length > length && reporter.idle() === null, 'a reply without it');
  server.idle = idle(60 * minute);
  expect(await report()).toEqual(all);
  expect(await report()).toEqual([]);
});

test('without any, it names the reply that the agent has; what the server then does not say is as before', async () => {
  server.idle = { ...idle(50 * minute), revision: 'one' };
  activity.record('terminal-input', 'ada');
  expect(await report()).toEqual(['terminal-input']);
  server.idle = null;
  expect(await report()).toEqual(['one']);
  expect(reporter.idle()).toMatchObject({ reply: { stopsInMs: 49 * minute }, ageMs: 0 });
  expect(await report()).toEqual(['one']);
  expect(reporter.idle()!.reply.stopsInMs).toBe(48 * minute);
  activity.record('sync', 'rsync');
  server.idle = { ...idle(60 * minute), revision: 'two' };
  expect(await report()).toEqual(['sync']);
  // A server that was restored from a backup answers something else.
  server.idle = { ...idle(20 * minute), revision: 'three' };
  expect(await report()).toEqual(['two']);
  expect(await report()).toEqual(['terminal-input', 'sync']);
  expect(await report()).toEqual(['three']);
});
