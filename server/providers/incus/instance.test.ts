import { IncusSection } from '@cde/api/template-file.ts';
import { gatewayServerUrl } from '@cde/tunnel/network/gateway.ts';
import { expect, test } from 'vitest';
import type { WorkspaceSpec } from '../provider.ts';
import { agentUnit, type UnitPlan } from '../vm/unit.ts';
import { IncusError } from './client.ts';
import { explainExit } from './exit.ts';
import { imageSource } from './image.ts';
import { describeIsolation, type InstancePlan, workspaceInstance } from './instance.ts';
import { workspaceOf } from './names.ts';
import { refusal } from './refusal.ts';

const section = (given: Record<string, unknown> = {}) => IncusSection.parse({ image: 'dev', ...given });
const plan = (given: Record<string, unknown> = {}, changes: Partial<InstancePlan> = {}): InstancePlan => ({
  installation: 'here',
  spec: { workspaceId: 'w1', owner: 'ada', name: 'web', template: {} } as unknown as WorkspaceSpec,
  section: section(given),
  launch: { buildId: 'b1', serverUrl: 'https://cde.example.com', token: 'cde_agent_secret' },
  kind: 'container',
  home: { project: 'default', pool: 'fast', name: 'cde-home-w1' },
  agentVolume: 'cde-agent-1',
  surroundings: { pool: 'fast', nic: null },
  gatewayFolder: null,
  creator: 'host:1',
  ...changes,
});
const unit = (changes: Partial<UnitPlan> = {}) =>
  agentUnit({
    enter: { owner: 'ada', user: '1000', home: '/home/ada', hostname: 'web' },
    serverUrl: 'https://cde.example.com/a%20b',
    hasGateway: false,
    canBeRoot: false,
    processes: 100,
    graceSeconds: 10,
    ...changes,
  });

test('Incus is told no token', () => {
  expect(JSON.stringify(workspaceInstance(plan())) + unit()).not.toContain('cde_agent_secret');
});

test('limits of containers, without swap, and of virtual machines', () => {
  const limits = { memory: '2Gi', cpus: 1.5, processes: 100, disk: '20Gi' };
  const container = workspaceInstance(plan(limits));
  expect(container.config).toMatchObject({
    'limits.memory': String(2 ** 31),
    'limits.memory.swap': 'false',
    'limits.cpu': '2',
    'limits.cpu.allowance': '150ms/100ms',
    'limits.processes': '100',
  });
  expect(container.devices.root).toEqual({
    type: 'disk',
    path: '/',
    pool: 'fast',
    size: String(20 * 2 ** 30),
  });
  const { config } = workspaceInstance(plan(limits, { kind: 'virtual-machine' }));
  expect(config).toMatchObject({ 'limits.cpu': '2', 'limits.memory': String(2 ** 31) });
  expect(config).not.toHaveProperty('limits.cpu.allowance');
  expect(config).not.toHaveProperty('limits.processes');
});

test('an instance never starts by itself, and shows its keys to nobody inside', () => {
  expect(workspaceInstance(plan()).config).toMatchObject({
    'boot.autostart': 'false',
    'security.guestapi': 'false',
  });
});

test('only a container on the machine of the server has its socket', () => {
  const gatewayFolder = '/data/gateway';
  expect(workspaceInstance(plan({}, { gatewayFolder })).devices['cde-gateway']).toEqual({
    type: 'disk',
    source: gatewayFolder,
    path: '/opt/cde-gateway',
    readonly: 'true',
  });
  const machine = workspaceInstance(plan({}, { gatewayFolder, kind: 'virtual-machine' }));
  expect(machine.devices).not.toHaveProperty('cde-gateway');
  expect(unit({ hasGateway: true })).toContain(
    `CDE_SERVER_URL=https://cde.example.com/a%%20b,${gatewayServerUrl}"`,
  );
});

test('a workspace cannot become root, unless its template says so', () => {
  expect(unit()).toMatch(/^NoNewPrivileges=yes$/m);
  expect(unit({ canBeRoot: true })).not.toMatch(/NoNewPrivileges|CapabilityBoundingSet/);
  expect(unit()).toContain(String.raw`Environment="CDE_ENTER={\"owner\":\"ada\",`);
});

test.each([
  [{ image: 'debian/12' }, { type: 'image', alias: 'debian/12' }],
  [{ image: 'a1b2c3d4e5f6' }, { type: 'image', fingerprint: 'a1b2c3d4e5f6' }],
  [
    { image: 'images:debian/12/cloud' },
    {
      type: 'image',
      alias: 'debian/12/cloud',
      mode: 'pull',
      server: 'https://images.linuxcontainers.org',
      protocol: 'simplestreams',
    },
  ],
  [
    { image: 'dev', imageServer: 'https://images.example.com' },
    {
      type: 'image',
      alias: 'dev',
      mode: 'pull',
      server: 'https://images.example.com',
      protocol: 'simplestreams',
    },
  ],
])('%j is found as %j', (given, source) => {
  expect(imageSource(section(given))).toEqual(source);
});

test('the isolation is described with its limits', () => {
  const nic = { name: 'eth0', device: {}, isIsolated: true };
  expect(
    describeIsolation(section({ memory: 2 ** 31, cpus: 2 }), 'container', { version: '6.0.4', nic }),
  ).toBe(
    'System container on Incus 6.0.4, unprivileged, does not reach other workspaces; runs as user 1000, without capabilities and with no-new-privileges. Limits: memory 2Gi, 2 CPUs, processes 8192.',
  );
});

test.each([
  ['oom-kill killed KILL running', 'out-of-memory', 'ran out of memory (limit 512Mi)'],
  ['signal killed KILL running', 'agent-exited', 'was killed by SIGKILL'],
  ['exit-code exited 1 running', 'agent-exited', 'exited with code 1'],
  ['success killed TERM stopping', 'removed', expect.stringContaining('not by cde')],
  [null, 'node-restarted', expect.stringContaining('restarted')],
])('%j: %s', (said, cause, text) => {
  const found = { type: 'container' as const, config: { 'limits.memory': String(512 * 2 ** 20) } };
  expect(explainExit(said, found)).toMatchObject({ cause, text });
});

test.each([
  ['Failed getting image: The requested image couldn\'t be found for fingerprint "x"', 'image-not-found'],
  ['Image not provided for instance creation', 'image-not-found'],
  ['Reached maximum number of instances in project "team"', 'quota-exceeded'],
  ['write /x: no space left on device', 'engine-disk-full'],
  [
    'Get "https://images.example.com/streams": dial tcp: lookup x: no such host',
    'image-registry-unreachable',
  ],
  ['Something new', 'incus-refused'],
])('%j fails with %s', (said, code) => {
  expect(refusal(new IncusError(400, said))).toMatchObject({ code, detail: said });
});

test('instances of others are ignored', () => {
  const id = '0190f3a0-1111-7222-8333-444455556666';
  expect([workspaceOf(`cde-${id}`), workspaceOf('cde-web'), workspaceOf(id)]).toEqual([id, null, null]);
});
