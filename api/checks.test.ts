import { expect, test } from 'vitest';
import { type Check, rootFindings, runChecks } from './checks.ts';
import { Finding } from './findings.ts';

const finding = (code: string, more: Partial<Finding> = {}): Finding =>
  Finding.parse({ code, severity: 'error', message: `${code}.`, ...more });
const { signal } = new AbortController();
const states = async (checks: Check[], timeoutMs?: number) =>
  (await runChecks(checks, { signal, ...(timeoutMs && { timeoutMs }) })).map(
    ({ name, state, because }) => `${name} ${state}${because.length > 0 ? ` (${because})` : ''}`,
  );

test('a check whose foundation failed is skipped, and the one that failed is named however deep it lies', async () => {
  const ran: string[] = [];
  const check = (name: string, dependsOn: string[], findings: Finding[] = []): Check => ({
    name,
    dependsOn,
    run() {
      ran.push(name);
      return findings;
    },
  });
  expect(
    await states([
      check('network', [], [finding('no-network')]),
      check('server', ['network']),
      check('sign-in', ['server']),
      check('disk', []),
      check('editor', ['disk'], [finding('old', { severity: 'warning' })]),
      // A warning is no reason to skip.
      check('plugins', ['editor']),
    ]),
  ).toEqual([
    'network failed',
    'server skipped (network)',
    'sign-in skipped (network)',
    'disk passed',
    'editor warned',
    'plugins passed',
  ]);
  expect(ran).toEqual(['network', 'disk', 'editor', 'plugins']);
});

test('a check that throws or hangs is a finding about itself', async () => {
  const broken: Check = { name: 'broken', run: () => Promise.reject(new Error('no such file')) };
  const hanging: Check = { name: 'hanging', run: () => new Promise(() => {}) };
  const after: Check = { name: 'after', dependsOn: ['broken', 'hanging'], run: () => [] };
  const results = await runChecks([broken, hanging, after], { signal, timeoutMs: 20 });
  expect(results.flatMap(({ findings }) => findings)).toMatchObject([
    { code: 'check-failed', severity: 'warning', detail: 'no such file' },
    { code: 'check-timeout', severity: 'warning' },
  ]);
  expect(results[2]!.state).toBe('passed');
});

test('a dependency must come before', async () => {
  const checks = [{ name: 'one', dependsOn: ['two'], run: () => [] }];
  await expect(runChecks(checks, { signal })).rejects.toThrow('which is not before it');
});

test('rejects when it is aborted', async () => {
  const stop = new AbortController();
  stop.abort(new Error('interrupted'));
  await expect(runChecks([], { signal: stop.signal })).rejects.toThrow('interrupted');
});

test('a consequence never hides its cause', () => {
  const codes = (...all: Finding[]) => rootFindings(all).map(({ code }) => code);
  const expired = finding('certificate-expired', { dependsOn: ['clock-wrong'] });
  const unreachable = finding('server-unreachable', { dependsOn: ['certificate-expired', 'no-network'] });
  const clock = finding('clock-wrong');
  expect(codes(unreachable, expired, clock)).toEqual(['clock-wrong']);
  expect(codes(unreachable, expired)).toEqual(['certificate-expired']);
  expect(codes(unreachable)).toEqual(['server-unreachable']);
  // The middle of the chain was not found: the ends are not connected.
  expect(codes(unreachable, clock)).toEqual(['server-unreachable', 'clock-wrong']);
});

test('findings that explain each other stay, and errors come first', () => {
  const [one, two] = [
    finding('one', { dependsOn: ['two'], severity: 'info' }),
    finding('two', { dependsOn: ['one'], severity: 'warning' }),
  ];
  expect(rootFindings([one, two, finding('three')]).map(({ code }) => code)).toEqual(['three', 'two', 'one']);
  expect(rootFindings([finding('self', { dependsOn: ['self'] })])).toHaveLength(1);
});
