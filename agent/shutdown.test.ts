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
function start({ sample = async () => {}, onSleep = (_ms: number) => {}, deliverLog = async () => {} } = {}) {
  const activity = makeActivity({ now: () => now });
  const scripts: string[] = [];
  const printed: string[] = [];
  let paused = 0;
  let running = 0;
  let maxRunning = 0;
  let endScript = () => {};
  const shutdown = makeShutdown({
    client: makeServerClient({ urls: server.url, token }),
    activity,
    work: {
      sample,
      pause() {
        paused += 1;
        return async () => {
          paused -= 1;
        };
      },
    },
    async runScript({ script, signal }) {
      scripts.push(`${script}, ${paused} pause`);
      running += 1;
      maxRunning = Math.max(maxRunning, running);
      await new Promise<void>((resolve) => {
        endScript = resolve;
        signal.addEventListener('abort', () => resolve());
      });
      running -= 1;
      return { exitCode: signal.aborted ? null : 3, signal: null, timedOut: false, durationMs: 1 };
    },
    print: (text) => printed.push(text),
    deliverLog,
    signal: stopping.signal,
    clock: {
      now: () => now,
      random: () => 0,
      // Time passes while somebody waits.
      sleep: async (ms) => {
        now += ms;
        onSleep(ms);
        await new Promise(setImmediate);
      },
    },
  });
  const answer = () => until(() => server.shutdownAnswers[0], 'an answer');
  return {
    activity,
    shutdown,
    scripts,
    printed,
    answer,
    endScript: () => endScript(),
    paused: () => paused,
    maxRunning: () => maxRunning,
  };
}

test('without activity since the decision, the script runs and the agent is ready, once for each request', async () => {
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

test('activity that the sample before the script finds is a veto', async () => {
  const { activity, shutdown, scripts, answer } = start({
    sample: async () => activity.record('process-cpu', 'make'),
  });
  activity.record('terminal-input', 'ada', 30 * minute);
  shutdown.handle(request());
  expect(await answer()).toMatchObject({ state: 'vetoed' });
  expect(scripts).toEqual([]);
});

test('a keystroke after the script, while the server is unreachable, is a veto with the ages of that moment', async () => {
  let sleeps = 0;
  const { activity, shutdown, scripts, answer, endScript, printed } = start({
    onSleep() {
      sleeps += 1;
      now += 20_000;
      if (sleeps === 2) activity.record('terminal-input', 'ada');
      if (sleeps === 3) now += 7000;
    },
  });
  server.answer(postAgentShutdown.path, 503, 503, 503);
  shutdown.handle(request());
  await until(() => scripts.length > 0, 'the script');
  endScript();
  expect(await answer()).toMatchObject({
    state: 'vetoed',
    activity: { signals: [{ signal: 'terminal-input', by: 'ada', ageMs: 27_000 }] },
  });
  expect([sleeps, printed]).toEqual([
    3,
    ['The stop was cancelled: there was activity after it was decided.'],
  ]);
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

test('requests are answered one after the other, and are pending until the last is', async () => {
  const { shutdown, scripts, endScript, maxRunning } = start();
  const asked = [request(), request(), request()];
  for (const one of asked) shutdown.handle(one);
  for (let done = 1; done <= 3; done += 1) {
    await until(() => scripts.length === done, `script ${done}`);
    expect(shutdown.isPending).toBe(true);
    endScript();
    await until(() => server.shutdownAnswers.length === done, `answer ${done}`);
  }
  await until(() => !shutdown.isPending, 'the end');
  expect(server.shutdownAnswers.map(({ id }) => id)).toEqual(asked.map(({ id }) => id));
  expect(maxRunning()).toBe(1);
});

test('a stop that nothing can veto ends the script of one that can, and goes ahead', async () => {
  const { shutdown, scripts, answer, endScript, maxRunning } = start();
  shutdown.handle(request());
  await until(() => scripts.length === 1, 'the script of the idle stop');
  const asked = request({ cause: 'request', idleSinceAgeMs: null, script: 'save now' });
  shutdown.handle(asked);
  await until(() => scripts.length === 2, 'the second script');
  expect(server.shutdownAnswers).toEqual([]);
  endScript();
  expect(await answer()).toMatchObject({ id: asked.id, state: 'ready', exitCode: 3 });
  await until(() => !shutdown.isPending, 'the end');
  expect([scripts, server.shutdownAnswers.length, maxRunning()]).toEqual([
    ['save, 1 pause', 'save now, 1 pause'],
    1,
    1,
  ]);
});

test('the answer does not overtake the output of the script', async () => {
  let isOutage = true;
  let attempts = 0;
  const { shutdown, scripts, answer, endScript } = start({
    async deliverLog() {
      attempts += 1;
      if (isOutage) throw new Error('connect ECONNREFUSED');
    },
  });
  shutdown.handle(request());
  await until(() => scripts.length > 0, 'the script');
  endScript();
  await until(() => attempts > 3, 'attempts');
  expect(server.shutdownAnswers).toEqual([]);
  isOutage = false;
  expect(await answer()).toMatchObject({ state: 'ready' });
});

test('a request that cannot be prepared is answered when it is sent again', async () => {
  let samples = 0;
  const { shutdown, printed, answer } = start({
    async sample() {
      samples += 1;
      if (samples === 1) throw new Error('no /proc');
    },
  });
  const asked = request({ script: null });
  shutdown.handle(asked);
  await until(() => !shutdown.isPending, 'the failure');
  expect(printed).toEqual(['The stop cannot be prepared: no /proc']);
  shutdown.handle(asked);
  expect(await answer()).toMatchObject({ id: asked.id, state: 'ready' });
});

test('the script does not start once the agent stops', async () => {
  const { shutdown, scripts } = start({ sample: async () => stopping.abort() });
  shutdown.handle(request());
  await until(() => !shutdown.isPending, 'the end');
  expect([scripts, server.shutdownAnswers]).toEqual([[], []]);
});

test('an answer that the server refuses is printed', async () => {
  const { shutdown, printed } = start();
  server.answer(postAgentShutdown.path, 409);
  shutdown.handle(request({ script: null }));
  await until(() => !shutdown.isPending, 'the end');
  expect(printed).toEqual([expect.stringContaining('Planned 409')]);
});

test('a server that answers at once is not polled without a pause', async () => {
  const sleeps: number[] = [];
  const { shutdown } = start({ onSleep: (ms) => sleeps.push(ms) });
  let polls = 0;
  await shutdown.watch({
    call: (async () => {
      polls += 1;
      if (polls === 10) stopping.abort();
      return { shutdown: null };
    }) as never,
  });
  expect([polls, sleeps.every((ms) => ms >= 500), sleeps.length]).toEqual([10, true, 10]);
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

test('a stop that nothing can veto is noticed while the script of one that can runs', async () => {
  const { shutdown, scripts, endScript } = start();
  const watching = shutdown.watch(makeServerClient({ urls: server.url, token }));
  server.shutdown = request();
  await until(() => scripts.length === 1, 'the script of the idle stop');
  const asked = request({ cause: 'request', idleSinceAgeMs: null, script: 'save now' });
  server.shutdown = asked;
  await until(() => scripts.length === 2, 'the second script');
  endScript();
  await until(() => server.shutdownAnswers.length === 1, 'an answer');
  expect(server.shutdownAnswers).toMatchObject([{ id: asked.id, state: 'ready' }]);
  server.shutdown = null;
  stopping.abort();
  await watching;
});
