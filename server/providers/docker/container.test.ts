import { DockerSection } from '@cde/api/template-file.ts';
import { gatewayServerUrl } from '@cde/tunnel/network/gateway.ts';
import { expect, test } from 'vitest';
import type { WorkspaceSpec } from '../provider.ts';
import { type ContainerPlan, describeIsolation, workspaceContainer } from './container.ts';
import { explainExit } from './exit.ts';
import { subnetAt } from './networks.ts';

const plan = (section: Record<string, unknown>, changes: Partial<ContainerPlan> = {}): ContainerPlan => ({
  installation: 'here',
  spec: { workspaceId: 'w1', owner: 'ada', name: 'web', template: {} } as unknown as WorkspaceSpec,
  section: DockerSection.parse({ image: 'dev:1', ...section }),
  launch: { buildId: 'b1', serverUrl: 'https://cde.example.com', token: 'cde_agent_secret' },
  home: 'cde-home-w1',
  agentVolume: 'cde-agent-1',
  network: 'n1',
  imageUser: '',
  gatewayFolder: null,
  hasInit: true,
  ...changes,
});

test('the engine is told no token', () => {
  expect(JSON.stringify(workspaceContainer(plan({})))).not.toContain('cde_agent_secret');
});

test('limits, without swap', () => {
  const { HostConfig } = workspaceContainer(plan({ memory: '2Gi', cpus: '500m', processes: 100 }));
  expect(HostConfig).toMatchObject({
    Memory: 2 ** 31,
    MemorySwap: 2 ** 31,
    NanoCpus: 500_000_000,
    PidsLimit: 100,
  });
});

test('a workspace cannot become root, unless its template says so or its user is root', () => {
  const rights = (section: Record<string, unknown>, imageUser = '') => {
    const { CapDrop, SecurityOpt, Privileged } = workspaceContainer(plan(section, { imageUser })).HostConfig!;
    expect(Privileged).toBeUndefined();
    return [CapDrop, SecurityOpt];
  };
  const none = [['ALL'], ['no-new-privileges']];
  const usual = [undefined, undefined];
  expect(rights({})).toEqual(none);
  expect(rights({ user: 'image' }, 'node')).toEqual(none);
  expect(rights({ user: 'image' })).toEqual(usual);
  expect(rights({ user: 0 })).toEqual(usual);
  expect(rights({ allowPrivilegeEscalation: true })).toEqual(usual);
});

test('an agent on the machine of the server has its socket, too', () => {
  const { Env, HostConfig } = workspaceContainer(plan({}, { gatewayFolder: '/data/gateway' }));
  expect(Env).toContain(`CDE_SERVER_URL=https://cde.example.com,${gatewayServerUrl}`);
  expect(HostConfig!.Mounts).toContainEqual({
    Type: 'bind',
    Source: '/data/gateway',
    Target: '/run/cde',
    ReadOnly: true,
  });
});

test('the isolation is described with its limits', () => {
  expect(describeIsolation(plan({ memory: 2 ** 31, cpus: 2 }), 'Docker 28.2.2')).toBe(
    'Container on Docker 28.2.2 with a network of its own; runs as user 1000, without capabilities and with no-new-privileges. Limits: memory 2Gi, 2 CPUs, processes 8192.',
  );
});

test.each([
  [{ ExitCode: 137, OOMKilled: true }, 'out-of-memory', 'ran out of memory (limit 512 MiB)'],
  [{ ExitCode: 137, OOMKilled: false }, 'agent-exited', 'was killed by SIGKILL'],
  [{ ExitCode: 1, OOMKilled: false }, 'agent-exited', 'exited with code 1'],
  [{ ExitCode: 255, OOMKilled: false }, 'node-restarted', expect.stringContaining('engine')],
])('%o: %s', (State, cause, text) => {
  const found = { State, HostConfig: { Memory: 512 * 2 ** 20 } } as never;
  expect(explainExit(found)).toEqual({ cause, text });
});

test('subnets of 16 addresses, 4,096 of them', () => {
  expect([0, 1, 16, 4095, 4096].map(subnetAt)).toEqual([
    '10.199.0.0/28',
    '10.199.0.16/28',
    '10.199.1.0/28',
    '10.199.255.240/28',
    '10.199.0.0/28',
  ]);
});
