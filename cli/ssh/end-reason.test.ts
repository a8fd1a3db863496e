import { expect, test } from 'vitest';
import { build, workspace } from '../testing/objects.ts';
import { findEndReason } from './end-reason.ts';

const began = new Date('2026-01-01T12:00:00Z');
const during = { createdAt: '2026-01-01T12:30:00.000Z', finishedAt: null } as const;
const before = { createdAt: '2026-01-01T08:00:00.000Z', finishedAt: '2026-01-01T08:01:00.000Z' } as const;

test.each([
  [
    'stopped by a person',
    workspace({
      status: 'stopping',
      latestBuild: build({ ...during, transition: 'stop', initiator: 'bob' }),
    }),
    'web was stopped by bob.',
  ],
  [
    'stopped by a policy',
    workspace({
      status: 'stopped',
      latestBuild: build({ ...during, transition: 'stop', initiator: 'system', reason: 'idle for 2 h.' }),
    }),
    'web was stopped by the system (idle for 2 h).',
  ],
  [
    'deleted',
    workspace({
      status: 'deleting',
      latestBuild: build({ ...during, transition: 'delete', initiator: 'ada' }),
    }),
    'web was deleted by ada.',
  ],
  [
    'updated',
    workspace({
      status: 'starting',
      latestBuild: build({ ...during, transition: 'update', initiator: 'root' }),
    }),
    'web was updated by root, which ended the session.',
  ],
  [
    'restarted',
    workspace({
      status: 'stopping',
      latestBuild: build({ ...during, transition: 'start', initiator: 'bob' }),
    }),
    'web was restarted by bob, which ended the session.',
  ],
  ['failed', workspace({ status: 'failed', latestBuild: build(before) }), 'web has failed.'],
])('a workspace that was %s ends its sessions in these words', (_, seen, message) => {
  expect(findEndReason('web', seen, began)?.message).toBe(message);
});

test('a build of before the session explains nothing', () => {
  const seen = workspace({ status: 'running', latestBuild: build({ ...before, transition: 'start' }) });
  expect(findEndReason('web', seen, began)).toBeNull();
});
