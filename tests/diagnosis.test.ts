import { afterAll, beforeAll, expect, test } from 'vitest';
import { cloneDatabase } from './kit/database.ts';
import { type Machine, makeMachine } from './kit/machine.ts';

/** The commands for diagnosis, by the real programs: server, agent and `cde`. */
let machine: Machine;
beforeAll(async () => {
  machine = await makeMachine({ DATABASE_URL: await cloneDatabase() });
  await machine.start();
});
afterAll(() => machine?.remove());

const events = (text: string): any[] =>
  text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

test('ping: a line per round trip with each leg, and what stands in the way of a better path', async () => {
  const ran = await machine.cde(
    'ping',
    'hello',
    '--count',
    '3',
    '--interval',
    '0.2',
    '--path',
    'relay',
    '--json',
  );
  expect(ran.code, ran.stderr).toBe(0);
  const all = events(ran.stdout);
  expect(all.map(({ event }) => event)).toEqual(['round-trip', 'round-trip', 'round-trip', 'summary']);
  for (const trip of all.slice(0, 3))
    expect(trip).toMatchObject({
      kind: 'relay',
      satellite: 'embedded',
      totalMs: expect.any(Number),
      clientMs: expect.any(Number),
      agentMs: expect.any(Number),
      agentMsIs: 'measured',
    });
  const summary = all[3];
  expect(summary).toMatchObject({ sent: 3, answered: 3, lossPercent: 0, agentOutdated: false });
  expect(summary.total.minMs).toBeLessThanOrEqual(summary.total.p95Ms);
  expect(summary.obstacles.map(({ kind, code }: Record<string, string>) => `${kind} ${code}`)).toEqual([
    'direct-tcp not-requested',
    'direct-udp not-requested',
  ]);
});

test('ping: a direct path has one leg; Ctrl-C ends it with the summary', async () => {
  const ping = machine.begin(['ping', 'hello', '--interval', '0.2', '--path', 'direct-tcp']);
  await ping.says(/^\d+ {2}[\d.]+ ms {2}direct-tcp [\d.]+:\d+$/m);
  ping.process.kill('SIGINT');
  const { code, stdout } = await ping.ended;
  expect(code).toBe(0);
  expect(stdout).toMatch(/^owner\/hello: \d+ sent, \d+ answered, 0 % lost$/m);
  expect(stdout).toMatch(/^round trip +min [\d.]+ {2}p50 [\d.]+ {2}p95 [\d.]+ {2}max [\d.]+ ms$/m);
  expect(stdout).toContain('The path is direct by TCP');
});

test('ping: refuses nonsense, and does not start a stopped workspace', async () => {
  for (const words of [
    ['--count', '0'],
    ['--interval', '0.01'],
    ['--interval', 'soon'],
  ])
    expect(await machine.cde('ping', 'hello', ...words)).toMatchObject({ code: 2 });
  // It exists if this is the second attempt.
  await machine.cde('create', 'resting', '--no-start');
  expect(await machine.cde('ping', 'resting')).toMatchObject({
    code: 5,
    stderr: expect.stringContaining('[workspace-not-running]'),
  });
});

test('doctor: nothing is wrong on a fresh machine; a stopped workspace is, and can be started', async () => {
  const well = await machine.cde('doctor', 'hello', '--json');
  const { checks, findings } = JSON.parse(well.stdout);
  expect(findings.filter(({ severity }: { severity: string }) => severity === 'error')).toEqual([]);
  expect(well.code).toBe(0);
  for (const name of ['network', 'dns', 'server', 'sign-in', 'versions', 'satellites', 'workspace'])
    expect(checks).toContainEqual({ name, state: 'passed', because: [] });
  const resting = await machine.cde('doctor', 'resting');
  expect(resting.code).toBe(5);
  expect(resting.stdout).toMatch(/^error: owner\/resting is stopped\. \[workspace-not-running\]$/m);
  expect(resting.stdout).toContain('cde start owner/resting');
});
