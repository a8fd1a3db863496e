import type { Build, Workspace } from '@cde/api/workspaces.ts';
import { expect, test } from 'vitest';
import { dropWorkspace, laterBuild, laterWorkspace, type Pages, putBuild, putWorkspace } from './reduce.ts';

const at = (second: number) => new Date(Date.UTC(2026, 0, 1, 0, 0, second)).toISOString();

function build(number: number, change: Partial<Build> = {}): Build {
  return {
    id: `build-${number}`,
    workspaceId: 'w1',
    number,
    transition: 'start',
    status: 'running',
    templateVersion: 1,
    stages: [],
    error: null,
    initiator: 'ada',
    reason: '',
    cancelRequested: false,
    createdAt: at(number),
    startedAt: at(number),
    finishedAt: null,
    ...change,
  };
}

function workspace(id: string, second: number, change: Partial<Workspace> = {}): Workspace {
  return {
    id,
    owner: 'ada',
    name: id,
    template: 'local',
    templateVersion: 1,
    activeTemplateVersion: 1,
    outdated: false,
    provider: 'local',
    parameters: {},
    desired: 'running',
    status: 'starting',
    reason: null,
    isolation: null,
    cluster: null,
    namespace: null,
    home: '/home/ada',
    agent: { connected: false, version: null, lastSeenAt: null, sshHostKey: null },
    latestBuild: null,
    createdAt: at(0),
    updatedAt: at(second),
    ...change,
  };
}

const stage = (name: Build['stages'][number]['name'], finished: boolean) => ({
  name,
  status: finished ? ('succeeded' as const) : ('running' as const),
  startedAt: at(1),
  finishedAt: finished ? at(2) : null,
});

test('a build never goes back', () => {
  const early = build(1, { stages: [stage('queued', true), stage('render', false)] });
  const later = build(1, {
    stages: [stage('queued', true), stage('render', true), stage('provision', false)],
  });
  const over = build(1, { status: 'failed', stages: later.stages, finishedAt: at(9) });
  expect(laterBuild(early, later)).toBe(later);
  expect(laterBuild(later, early)).toBe(later);
  expect(laterBuild(over, later)).toBe(over);
  expect(laterBuild(later, build(2))).toMatchObject({ number: 2 });
  expect(laterBuild(build(2), over)).toMatchObject({ number: 2 });
});

test('a reply that was overtaken by an event changes nothing', () => {
  const known = workspace('w1', 5, { status: 'running' });
  expect(laterWorkspace(known, workspace('w1', 4))).toBe(known);
  expect(laterWorkspace(known, workspace('w1', 5, { status: 'stopping' })).status).toBe('stopping');
});

test('a later workspace keeps the more recent state of its build', () => {
  const known = workspace('w1', 5, { latestBuild: build(2, { status: 'succeeded', finishedAt: at(8) }) });
  const next = workspace('w1', 6, { latestBuild: build(2) });
  expect(laterWorkspace(known, next)).toMatchObject({
    updatedAt: at(6),
    latestBuild: { status: 'succeeded' },
  });
});

test('a new workspace with the same name replaces the deleted one', () => {
  const recreated = { ...workspace('w2', 1), name: 'w1' };
  expect(laterWorkspace(workspace('w1', 9), recreated)).toBe(recreated);
});

test('replaces and removes a row in the page that has it', () => {
  const list: Pages<Workspace> = {
    pages: [
      { items: [workspace('a', 1), workspace('b', 1)], next: 'x' },
      { items: [workspace('c', 1)], next: null },
    ],
    pageParams: ['', 'x'],
  };
  const put = putWorkspace(list, workspace('c', 2, { status: 'running' }));
  expect(put.found).toBe(true);
  expect(put.list.pages[0]).toBe(list.pages[0]);
  expect(put.list.pages[1]!.items[0]!.status).toBe('running');
  expect(putWorkspace(list, workspace('d', 1))).toEqual({ list, found: false });
  expect(dropWorkspace(list, 'b').pages[0]!.items.map(({ id }) => id)).toEqual(['a']);
  expect(dropWorkspace(list, 'nobody')).toBe(list);
});

test('builds stay newest first', () => {
  const builds = [build(3), build(1)];
  expect(putBuild(builds, build(2)).map(({ number }) => number)).toEqual([3, 2, 1]);
  expect(putBuild(builds, build(4)).map(({ number }) => number)).toEqual([4, 3, 1]);
  expect(putBuild(builds, build(3, { status: 'queued' }))).toBe(builds);
});
