import { postAgentShutdown, type ShutdownRequest } from '@cde/api/activity.ts';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { until } from '../tests/kit/until.ts';
import { makeActivity } from './activity/activity.ts';
import { makeServerClient } from './server/client.ts';
import { makeShutdown } from './shutdown.ts';
import { makeTestServer, type TestServer, token } from './testing.ts';

let server: TestServer;
let stopping: AbortController;
let now: number;
beforeEach(async () => {
  server = await makeTestServer();
  stopping = new AbortController();
  now = 10_000_000;
});
afterEach(async () => {
  stopping.abort();
  await server.close();
});

const minute = 60_000;
let requests = 0;
const request = (more: Partial<ShutdownRequest> = {}): ShutdownRequest => {
  requests += 1;
  const id = `01980000-0000-7000-8000-${String(requests).padStart(12, '0')}`;
  return { id, cause: 'idle', idleSinceAgeMs: 30 * minute, script: 'save', timeoutMs: 1000, ...more };
};

/** `endScript` ends the script; aborting it does so as well. */
function start() {
  const activity = makeActivity({ now: () => now });
  const scripts: string[] = [];
  let paused = 0;
  let endScript = () => {};
  const shutdown = makeShutdown({
    client: makeServerClient({ urls: server.url, token }),
    activity,
    work: {
      sample: async () => {},
      pause() {
        paused += 1;
        return () => {
          paused -= 1;
        };
      },
    },
    async runScript({ script, signal }) {
      scripts.push(`${script}, ${paused} pause`);
      await new Promise<void>((resolve) => {
        endScript = resolve;
        signal.addEventListener('abort', () => resolve());
      });
      return { exitCode: signal.aborted ? null : 3, signal: null, timedOut: false, durationMs: 1 };
    },
    print() {},
    signal: stopping.signal,
    clock: {
      now: () => now,
      random: () => 0,
      // Time passes while somebody waits.
      sleep: async (ms) => {
        now += ms;
        await new Promise(setImmediate);
      },
    },
  });
  const answer = () => until(() => server.shutdownAnswers[0], 'an answer');
  return { activity, shutdown, scripts, answer, endScript: () => endScript(), paused: () => paused };
}

test('idle since then: the script runs, and then it is ready', async () => {
  const { activity, shutdown, scripts, answer, endScript, paused } = start();
  activity.record('terminal-input', 'ada', 30 * minute);
  const asked = request();
  shutdown.handle(asked);
  await until(() => scripts.length > 0, 'the script');
  expect([scripts, shutdown.isPending]).toEqual([['save, 1 pause'], true]);
  // Asked twice, answered once.
  shutdown.handle(asked);
  endScript();
  expect(await answer()).toMatchObject({ id: asked.id, state: 'ready', exitCode: 3, timedOut: false });
  await until(() => !shutdown.isPending, 'the end');
  expect([server.shutdownAnswers.length, scripts.length, paused()]).toEqual([1, 1, 0]);
});

test('a keystroke that the decision did not know of is a veto, and the script does not run', async () => {
  const { activity, shutdown, scripts, answer } = start();
  activity.record('terminal-input', 'ada', 100);
  shutdown.handle(request());
  expect(await answer()).toMatchObject({
    state: 'vetoed',
    activity: { signals: [{ signal: 'terminal-input', by: 'ada' }] },
  });
  expect(scripts).toEqual([]);
});

test('a keystroke while the script runs ends it and is a veto', async () => {
  const { activity, shutdown, scripts, answer } = start();
  shutdown.handle(request());
  await until(() => scripts.length > 0, 'the script');
  now += 20_000;
  activity.record('editor-input', 'ada');
  expect(await answer()).toMatchObject({ state: 'vetoed' });
});

test('so is one between the end of the script and the answer, and one of the same second', async () => {
  const { activity, shutdown, answer } = start();
  activity.record('terminal-input', 'ada', 30 * minute);
  activity.beforeReport(() => activity.record('terminal-input', 'ada'));
  shutdown.handle(request({ script: null }));
  expect(await answer()).toMatchObject({ state: 'vetoed' });
});

test('the activity that the decision was based on is no veto, even if the clocks drift', async () => {
  const { activity, shutdown, answer } = start();
  activity.record('terminal-input', 'ada', 30 * minute - 2000);
  shutdown.handle(request({ script: null }));
  expect(await answer()).toMatchObject({ state: 'ready', exitCode: null });
});

test('nothing vetoes a stop that a person asked for, or the end of the run time', async () => {
  const { activity, shutdown, answer } = start();
  activity.record('terminal-input', 'ada');
  shutdown.handle(request({ cause: 'request', idleSinceAgeMs: null, script: null }));
  expect(await answer()).toMatchObject({ state: 'ready' });
});

test('requests are waited for, and the answer is sent again until the server has it', async () => {
  const { shutdown } = start();
  server.answer(postAgentShutdown.path, 500, 503);
  const watching = shutdown.watch(makeServerClient({ urls: server.url, token }));
  server.shutdown = request({ script: null });
  await until(() => server.shutdownAnswers.length === 1, 'an answer');
  server.shutdown = null;
  stopping.abort();
  await watching;
  expect(server.faults).toEqual([]);
});
