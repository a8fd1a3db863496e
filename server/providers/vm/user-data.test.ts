import { gunzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { explainAgentExit } from './agent-exit.ts';
import { bootSecret, isBootSecret } from './boot-secret.ts';
import { agentUnit, endedPrefix } from './unit.ts';
import { type BootPlan, userData } from './user-data.ts';

const unit = agentUnit({
  enter: { owner: 'ada', user: '1000', home: '/home/ada', hostname: 'web' },
  serverUrl: 'https://cde.example.com',
  hasGateway: false,
  canBeRoot: false,
  processes: 8192,
  graceSeconds: 10,
  certificateAuthorities: '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n',
  reportsToConsole: true,
});
const plan = (changes: Partial<BootPlan> = {}): BootPlan => ({
  build: 'b1',
  secret: bootSecret('cde_agent_secret'),
  serverUrl: 'https://cde.example.com',
  certificateAuthorities: null,
  metadata: true,
  disk: { serial: 'vol0123456789abcdef0', paths: ['/dev/xvdh'] },
  home: '/home/ada',
  mayFormat: true,
  unit,
  ...changes,
});
const planIn = (text: string) => {
  expect(text).toMatch(/^#cloud-config\n/);
  const config = JSON.parse(text.slice(text.indexOf('\n')));
  return { config, plan: JSON.parse(config.bootcmd[0].at(-1)) as BootPlan };
};

test('user data is a cloud-config that runs on every boot, has no token, and fits', () => {
  const data = userData(plan());
  expect(data.length).toBeLessThan(16 * 1024);
  const { config, plan: found } = planIn(data.toString());
  expect(found).toEqual(plan());
  expect(config).toMatchObject({
    users: [],
    bootcmd: [['python3', '-c', expect.any(String), expect.any(String), expect.any(String)]],
  });
  expect(data.toString()).not.toContain('cde_agent_secret');
});

test('large user data is compressed', () => {
  const certificateAuthorities = 'MIIB '.repeat(2000);
  const data = userData(plan({ certificateAuthorities }));
  expect(data.length).toBeLessThan(16 * 1024);
  expect(planIn(gunzipSync(data).toString()).plan).toEqual(plan({ certificateAuthorities }));
});

test('the boot secret of one token is of no use for another', () => {
  const secret = bootSecret('one');
  expect(secret).toBe(bootSecret('one'));
  expect(isBootSecret(secret, 'one')).toBe(true);
  expect(isBootSecret(secret, 'other')).toBe(false);
  expect(isBootSecret('', 'one')).toBe(false);
});

test('the unit of the agent reports its end to the serial console if it has to', () => {
  expect(unit).toContain(endedPrefix);
  expect(unit).toContain('-----BEGIN CERTIFICATE-----\\nAAAA\\n');
  for (const line of unit.split('\n')) expect(line).not.toMatch(/^(AAAA|-----)/);
});

test('how an agent ended', () => {
  expect(explainAgentExit('exit-code exited 3 running', null)).toMatchObject({
    cause: 'agent-exited',
    text: 'exited with code 3',
  });
  expect(explainAgentExit('signal killed KILL running', null)).toMatchObject({
    cause: 'agent-exited',
    text: 'was killed by SIGKILL',
  });
  expect(explainAgentExit('oom-kill killed KILL running', 2 ** 31)).toMatchObject({
    cause: 'out-of-memory',
    text: 'ran out of memory (limit 2Gi)',
  });
  expect(explainAgentExit('success exited 0 stopping', null)).toMatchObject({ cause: 'removed' });
  expect(explainAgentExit('exit-code exited 203 running', null)).toMatchObject({ isNotExecutable: true });
});
