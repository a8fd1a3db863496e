import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { postAgentStartup } from '@cde/api/agent.ts';
import type { Clock } from '@cde/tunnel/clock.ts';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { makeServerClient } from './server/client.ts';
import { makeLogShipper } from './server/logs.ts';
import { alive, until } from './ssh/fixture.ts';
import { makePipePool } from './ssh/jobs/pipes.ts';
import { serveStartup } from './startup.ts';
import { makeTestServer, type TestServer, token } from './testing.ts';

let server: TestServer;
let home: string;
let stopping: AbortController;
let over: AbortController;
const pool = makePipePool();
beforeEach(async () => {
  server = await makeTestServer();
  home = await mkdtemp(join(tmpdir(), 'cde-startup-test-'));
  stopping = new AbortController();
  over = new AbortController();
});
afterEach(async () => {
  stopping.abort();
  over.abort();
  await server.close();
  await rm(home, { recursive: true, force: true });
});

function run(script: string | null, timeoutMs = 20_000, logClock?: Clock) {
  const client = makeServerClient({ urls: server.url, token });
  return serveStartup({
    startup: script === null ? null : { script, timeoutMs },
    client,
    workspace: {
      workspaceId: server.manifest.workspaceId,
      workspace: 'dev/hello',
      username: 'dev',
      home,
      env: { FROM_MANIFEST: 'yes' },
    },
    log: makeLogShipper({ client, process: 'one', signal: over.signal, clock: logClock }),
    pool,
    signal: stopping.signal,
    ended: over.signal,
  });
}
const texts = () => server.lines.map(({ text }) => text);
const pid = (name: string) =>
  until(() => existsSync(join(home, name)) && Number(readFileSync(join(home, name), 'utf8')), name);

test('runs in the home, logs in order, and reports its exit code', async () => {
  await run(
    'pwd; echo "$HOME $USER $FROM_MANIFEST $CDE_WORKSPACE"; seq 1 1000; echo bad >/dev/stderr; exit 3',
  );
  expect(texts().slice(0, 2)).toEqual([home, `${home} dev yes dev/hello`]);
  expect(texts().slice(2, 1002)).toEqual(Array.from({ length: 1000 }, (_, index) => String(index + 1)));
  expect(server.lines.at(-1)).toMatchObject({ text: 'bad', stream: 'stderr', source: 'startup' });
  expect(server.startup).toMatchObject([
    { state: 'running' },
    { state: 'done', exitCode: 3, signal: null, timedOut: false },
  ]);
  const end = server.startup[1] as { durationMs: number };
  expect(end.durationMs).toBeGreaterThan(0);
  expect(server.faults).toEqual([]);
});

test('no script is reported as none', async () => {
  await run(null);
  expect(server.startup).toEqual([{ state: 'none' }]);
});

test('a login shell runs it, a long script and one that reads its input too', async () => {
  await writeFile(join(home, '.profile'), 'export FROM_PROFILE=yes\n');
  await run(`cat; echo "[$FROM_PROFILE]"; : '${'x'.repeat(300_000)}'`);
  expect(texts()).toEqual(['[yes]']);
  expect(server.startup[1]).toMatchObject({ exitCode: 0 });
});

test('a signal that ends it is named', async () => {
  await run('kill -KILL $$');
  expect(server.startup[1]).toMatchObject({ exitCode: null, signal: 'SIGKILL', timedOut: false });
});

test('one that never ends is stopped with all its group, those deaf to SIGTERM too', async () => {
  await run(
    'trap "" TERM; echo $$ > script.pid; sleep 321 & echo $! > child.pid; echo waiting; while :; do wait; done',
    300,
  );
  expect(server.startup[1]).toMatchObject({ state: 'done', timedOut: true });
  expect(texts()[0]).toBe('waiting');
  expect(texts()[1]).toMatch(/did not end within 0.3 s/);
  expect(alive(await pid('script.pid'))).toBe(false);
  const child = await pid('child.pid');
  // Killed; its new parent process must notice.
  await until(() => !alive(child), 'the child has ended');
});

test('what it leaves running stays, is logged on, and does not hold the end up', async () => {
  await run(
    '(while [ ! -e go ]; do sleep 0.05; done; echo later; exec sleep 322) & echo $! > left.pid; echo now',
  );
  expect(server.startup[1]).toMatchObject({ exitCode: 0 });
  const left = await pid('left.pid');
  try {
    expect(alive(left)).toBe(true);
    await writeFile(join(home, 'go'), '');
    await until(() => texts().includes('later'), 'the later line');
    expect(texts()).toEqual(['now', 'later']);
  } finally {
    process.kill(left, 'SIGKILL');
  }
});

test('the reports are repeated until the server has them', async () => {
  server.answer(postAgentStartup.path, 503, -1, 500);
  await run('true');
  expect(server.startup.at(-1)).toMatchObject({ state: 'done', exitCode: 0 });
  expect(server.startup[0]).toEqual({ state: 'running' });
});

test('the end does not overtake lines of the log that wait for the server', async () => {
  let pauses = 0;
  const patient: Clock = {
    now: () => performance.now(),
    random: () => 1,
    // Longer than the outage, unless the log is sent for another reason.
    async sleep(_, signal) {
      pauses += 1;
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
    },
  };
  const running = run(
    'echo one; while [ ! -e go ]; do sleep 0.02; done; echo two; echo $$ > ended.pid',
    20_000,
    patient,
  );
  await until(() => texts().length === 1 && server.startup.length === 1, 'the first line');
  const { port, lines } = server;
  await server.close();
  await writeFile(join(home, 'go'), '');
  const script = await pid('ended.pid');
  await until(() => !alive(script) && pauses > 1, 'an end that cannot be reported');
  server = await makeTestServer({ port });
  await until(() => server.startup.length > 0, 'the report');
  expect([lines.map(({ text }) => text), texts()]).toEqual([['one'], ['two']]);
  expect(server.startup).toMatchObject([{ state: 'done', exitCode: 0 }]);
  await running;
});

test('the end of the agent ends the script, and says nothing of it', async () => {
  const running = run('echo $$ > script.pid; exec sleep 323');
  const script = await pid('script.pid');
  stopping.abort();
  await running;
  expect(alive(script)).toBe(false);
  expect(server.startup).toEqual([{ state: 'running' }]);
});
