import { expect, test } from 'vitest';
import type { WorkspaceSpec } from '../provider.ts';
import { bootPlanOf, gibibytes, isolationText, planOf } from './boot-data.ts';
import type { CloudSection, Volume } from './cloud.ts';

const section = (changes: Partial<CloudSection> = {}): CloudSection => ({
  user: 1000,
  allowPrivilegeEscalation: false,
  onStop: 'terminate',
  env: {},
  ...changes,
});

test('only a home on which no agent has run may be formatted', () => {
  const mayFormat = (labels: Volume['labels']) =>
    bootPlanOf({
      spec: { workspaceId: 'w1', owner: 'ada', name: 'web' } as WorkspaceSpec,
      section: section(),
      launch: { buildId: 'b1', serverUrl: 'https://cde.example.com', token: 'cde_agent_secret' },
      home: { labels } as Volume,
      ...{ disk: { serial: '', paths: [] }, metadata: false, certificateAuthorities: null, graceSeconds: 10 },
    }).mayFormat;
  expect(mayFormat({})).toBe(true);
  expect(mayFormat({ used: '' })).toBe(true);
  expect(mayFormat({ used: 'true' })).toBe(false);
});

test('sizes are whole GiB', () => {
  expect([gibibytes('1Mi'), gibibytes('10Gi'), gibibytes('1.5Gi')]).toEqual([1, 10, 2]);
});

test('a kept machine is replaced if what it was made from has changed', () => {
  expect(planOf(section({ env: { A: '1' }, snapshots: { keep: 2 }, processes: 5 }))).toBe(planOf(section()));
  expect(planOf(section({ allowPrivilegeEscalation: true }))).not.toBe(planOf(section()));
});

test('what separates a workspace from others', () => {
  const at = { where: 'EC2', details: ['t3.large', 'eu-central-1a'], network: 'accepts no connections' };
  expect(isolationText(section(), at)).toBe(
    'Virtual machine on EC2 (t3.large, eu-central-1a), accepts no connections; runs as user 1000, without capabilities and with no-new-privileges. Limits: processes 8192.',
  );
  expect(isolationText(section({ user: 0 }), at)).toContain('its programs can become root inside');
});
