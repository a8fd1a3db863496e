import { postAgentLogs } from '@cde/api/agent.ts';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { until } from '../ssh/fixture.ts';
import { makeTestServer, type TestServer, token } from '../testing.ts';
import { makeServerClient } from './client.ts';
import { logLimits, makeLogShipper } from './logs.ts';

let server: TestServer;
let over: AbortController;
beforeEach(async () => {
  server = await makeTestServer();
  over = new AbortController();
});
afterEach(async () => {
  over.abort();
  await server.close();
});

/** Waits a hundredth of the time. */
const clock = {
  now: () => performance.now(),
  random: () => 1,
  sleep: (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms / 100)),
};

function shipper(limits: Partial<typeof logLimits> = {}) {
  const client = makeServerClient({ urls: server.url, token });
  return makeLogShipper({ client, process: 'one', signal: over.signal, clock, limits });
}
const texts = () => server.lines.map(({ text }) => text);

test('lines arrive in order, numbered from 1, soon after they are written', async () => {
  const log = shipper();
  const out = log.writer('startup', 'stdout');
  const errors = log.writer('startup', 'stderr');
  out.write(Buffer.from('one\ntw'));
  errors.write(Buffer.from('wrong\r\n'));
  out.write(Buffer.from('o\n\nhalf ä'.slice(0, -1)));
  out.write(Buffer.from('ä').subarray(0, 1));
  out.write(Buffer.from('ä').subarray(1));
  out.end();
  await until(() => server.lines.length === 5, 'five lines');
  expect(server.lines.map(({ seq, source, stream, text }) => [seq, source, stream, text])).toEqual([
    [1, 'startup', 'stdout', 'one'],
    [2, 'startup', 'stderr', 'wrong'],
    [3, 'startup', 'stdout', 'two'],
    [4, 'startup', 'stdout', ''],
    [5, 'startup', 'stdout', 'half ä'],
  ]);
  expect(server.faults).toEqual([]);
});

test('long lines are split, and keep their characters', async () => {
  const log = shipper();
  const emoji = '😀';
  log.line('agent', 'stdout', `${'x'.repeat(logLimits.text - 1)}${emoji}y\0`);
  const writer = log.writer('startup', 'stdout');
  for (let written = 0; written < 5; written += 1) writer.write(Buffer.from('z'.repeat(10_000)));
  writer.end();
  await log.flush(5000);
  expect(server.faults).toEqual([]);
  expect(texts()[0]).toBe('x'.repeat(logLimits.text - 1));
  expect(texts()[1]).toBe(`${emoji}y\uFFFD`);
  expect(texts().slice(2).join('')).toBe('z'.repeat(50_000));
  expect(Math.max(...texts().map(({ length }) => length))).toBe(logLimits.text);
});

test('what is not acknowledged is sent again and stored once', async () => {
  // The third is taken and its reply lost.
  server.answer(postAgentLogs.path, 503, 429, -1, 500);
  const log = shipper();
  for (let line = 1; line <= 1200; line += 1) log.line('startup', 'stdout', String(line));
  await log.flush(10_000);
  expect(texts()).toEqual(Array.from({ length: 1200 }, (_, index) => String(index + 1)));
  expect(server.received).toBeGreaterThan(1200);
  expect(server.faults).toEqual([]);
});

test('a batch keeps to the size that the server takes', async () => {
  const log = shipper();
  // Six bytes each as JSON.
  for (let line = 0; line < 60; line += 1) log.line('startup', 'stdout', '\u0001'.repeat(logLimits.text));
  await log.flush(10_000);
  expect(server.lines.length).toBe(60);
});

test('beyond the limit the log ends with one line that says so', async () => {
  const log = shipper({ lines: 100 });
  for (let line = 1; line <= 5000; line += 1) log.line('startup', 'stdout', String(line));
  await log.flush(5000);
  expect(texts().length).toBe(100);
  expect(texts()[98]).toBe('99');
  expect(texts()[99]).toMatch(/^The log ends here: it has more than 100 lines/);
});

test('while the server is unreachable, memory is bounded and the gap is reported', async () => {
  const away = server;
  const { port } = away;
  await away.close();
  const log = shipper({ queuedBytes: 50_000 });
  for (let line = 1; line <= 2000; line += 1) log.line('startup', 'stdout', `line ${line}`);
  server = await makeTestServer({ port });
  await until(() => server.lines.length > 100, 'the first lines');
  await log.flush(5000);
  log.line('startup', 'stdout', 'after');
  await log.flush(5000);
  const kept = server.lines.length - 2;
  expect(texts()[kept - 1]).toBe(`line ${kept}`);
  expect(texts()[kept]).toBe(
    `${2000 - kept} lines are missing here: the server was unreachable or too slow.`,
  );
  expect(texts()[kept + 1]).toBe('after');
});

test('a delivery fails while the server is unreachable, and does not wait for a server that fails on the log', async () => {
  server.answer(postAgentLogs.path, 503, 502);
  const log = shipper();
  log.line('startup', 'stdout', 'one');
  await expect(log.deliver(600_000)).rejects.toMatchObject({ status: 503 });
  await expect(log.deliver(600_000)).rejects.toMatchObject({ status: 502 });
  await log.deliver(600_000);
  expect(texts()).toEqual(['one']);
  server.answer(postAgentLogs.path, ...Array<number>(100).fill(500));
  log.line('startup', 'stdout', 'two');
  await log.deliver(1);
  expect(texts()).toEqual(['one']);
});

test('a delivery waits only for the lines that were queued when it began', async () => {
  const log = shipper({ batchLines: 1 });
  let written = 0;
  const chatter = setInterval(() => {
    for (let line = 0; line < 20; line += 1) log.line('startup', 'stdout', String(++written));
  }, 1);
  try {
    await until(() => server.lines.length > 0, 'the first line');
    await log.deliver(600_000);
    expect(written).toBeGreaterThan(server.lines.length);
  } finally {
    clearInterval(chatter);
  }
});

test('a flush does not wait for a server that refuses the agent', async () => {
  server.answer(postAgentLogs.path, 410, 410, 410);
  const log = shipper();
  log.line('agent', 'stderr', 'unheard');
  // Longer than the test may take.
  await log.flush(600_000);
  expect(server.lines).toEqual([]);
});
