import { expect, test } from 'vitest';
import type { Provider } from '../../providers/provider.ts';
import { awaitAgent } from './await-agent.ts';
import { awaitStartup } from './await-startup.ts';
import type { BuildSnapshot } from './outcome.ts';

const provider = { observe: async () => ({ kind: 'running' }) } as unknown as Provider;
const start = Date.parse('2026-01-01T00:00:00Z');
const minute = 60_000;

function snapshotIn(stage: 'agent' | 'startup'): BuildSnapshot {
  const stages = [{ name: stage, status: 'running', startedAt: new Date(start).toISOString() }];
  return {
    workspace: { id: 'w', agentTlsKey: null, agentBuildId: null, providerState: null },
    build: { id: 'b', stages, startup: null, rendered: { startup: { script: 'make', timeout: '1m' } } },
  } as unknown as BuildSnapshot;
}
const deps = (startedAfterMs: number, nowAfterMs: number) => ({
  now: () => new Date(start + nowAfterMs),
  startedAt: new Date(start + startedAfterMs),
  agentUrl: async () => 'http://cde.example.com',
});

test.each([
  ['an agent that registers', awaitAgent, 'agent', 'agent-timeout'],
  ['the end of the startup script', awaitStartup, 'startup', 'startup-silent'],
] as const)('%s is awaited for two minutes in which there is a server', async (_, step, stage, code) => {
  const snapshot = snapshotIn(stage);
  const after = async (startedMs: number, nowMs: number) => step(deps(startedMs, nowMs), snapshot, provider);
  const failed = { build: { status: 'failed', error: { code } } };
  expect(await after(-minute, 2 * minute)).toEqual({ requeue: expect.any(Number) });
  expect(await after(-minute, 2 * minute + 1)).toMatchObject(failed);
  // The server was started again an hour later.
  expect(await after(60 * minute, 60 * minute)).toEqual({ requeue: expect.any(Number) });
  expect(await after(60 * minute, 62 * minute + 1)).toMatchObject(failed);
});
