import { stages, transitions, workspaceStatuses } from '@cde/api/workspaces.ts';
import { describe, expect, test } from 'vitest';
import {
  advanceStages,
  allowedStatusChanges,
  type BuildView,
  currentStage,
  evaluateRequest,
  nextStep,
  startsCompute,
  transitionStates,
} from './statuses.ts';

const build = (values: Partial<BuildView>): BuildView => ({
  transition: 'start',
  status: 'running',
  cancelRequested: false,
  stages: [],
  ...values,
});

describe('nextStep', () => {
  test('has a step for every status, transition, stage and cancel request', () => {
    for (const status of workspaceStatuses)
      for (const transition of transitions)
        for (const buildStatus of ['queued', 'running'] as const)
          for (const cancelRequested of [false, true])
            for (const stage of [null, ...stages]) {
              const view = build({
                transition,
                status: buildStatus,
                cancelRequested,
                stages: stage ? [{ name: stage, status: 'running' }] : [],
              });
              const step = nextStep({ desired: transitionStates[transition].desired, status, build: view });
              expect(step).toBeTruthy();
              expect(step).not.toBe('nothing');
              if (cancelRequested && startsCompute(transition)) expect(step).toBe('unwind');
            }
  });

  test('takes a start through its stages in order', () => {
    const at = (stage: (typeof stages)[number]) =>
      nextStep({
        desired: 'running',
        status: 'starting',
        build: build({ stages: [{ name: stage, status: 'running' }] }),
      });
    expect(nextStep({ desired: 'running', status: 'pending', build: build({ status: 'queued' }) })).toBe(
      'begin',
    );
    expect(stages.map(at)).toEqual([
      'render',
      'render',
      'provision',
      'await-agent',
      'await-startup',
      'finish',
    ]);
  });

  test('without a build, observes only running workspaces that should run', () => {
    for (const status of workspaceStatuses)
      for (const desired of ['running', 'stopped', 'deleted'] as const)
        expect(nextStep({ desired, status, build: null })).toBe(
          status === 'running' && desired === 'running' ? 'observe' : 'nothing',
        );
  });
});

describe('advanceStages', () => {
  test('ends the running stage and starts the next', () => {
    const first = advanceStages([], 'queued', new Date(1000));
    const second = advanceStages(first, 'render', new Date(2000));
    expect(second).toEqual([
      {
        name: 'queued',
        status: 'succeeded',
        startedAt: new Date(1000).toISOString(),
        finishedAt: new Date(2000).toISOString(),
      },
      { name: 'render', status: 'running', startedAt: new Date(2000).toISOString(), finishedAt: null },
    ]);
    expect(currentStage({ stages: second })).toBe('render');
    expect(advanceStages(second, null, new Date(3000), 'failed').at(-1)).toMatchObject({ status: 'failed' });
  });
});

describe('evaluateRequest', () => {
  const stopped = { status: 'stopped', desired: 'stopped' } as const;
  const starting = [{ transition: 'start' as const, cancelRequested: false }];
  test('needs no build if the workspace is already as requested', () => {
    expect(evaluateRequest(stopped, [], 'stop', false)).toEqual({ kind: 'already' });
    expect(evaluateRequest({ status: 'running', desired: 'running' }, [], 'start', false)).toEqual({
      kind: 'already',
    });
    expect(evaluateRequest({ status: 'starting', desired: 'running' }, starting, 'start', false)).toEqual({
      kind: 'already',
    });
  });
  test('always builds for a restart', () => {
    expect(evaluateRequest({ status: 'running', desired: 'running' }, [], 'start', true)).toEqual({
      kind: 'build',
      supersede: false,
    });
  });
  test('lets a stop or delete supersede a start in progress', () => {
    for (const transition of ['stop', 'delete'] as const)
      expect(
        evaluateRequest({ status: 'starting', desired: 'running' }, starting, transition, false),
      ).toEqual({
        kind: 'build',
        supersede: true,
      });
  });
  test('queues a start behind a stop, and rejects a third build', () => {
    const stopping = [{ transition: 'stop' as const, cancelRequested: false }];
    expect(evaluateRequest({ status: 'stopping', desired: 'stopped' }, stopping, 'start', false)).toEqual({
      kind: 'build',
      supersede: false,
    });
    expect(
      evaluateRequest(
        { status: 'stopping', desired: 'running' },
        [...stopping, ...starting],
        'update',
        false,
      ),
    ).toMatchObject({ kind: 'reject', code: 'workspace-busy' });
  });
  test('rejects a start during a delete, but not after a failed one', () => {
    const deleting = [{ transition: 'delete' as const, cancelRequested: false }];
    expect(
      evaluateRequest({ status: 'deleting', desired: 'deleted' }, deleting, 'start', false),
    ).toMatchObject({
      code: 'workspace-deleted',
    });
    expect(evaluateRequest({ status: 'failed', desired: 'deleted' }, [], 'start', false)).toMatchObject({
      kind: 'build',
    });
    expect(evaluateRequest({ status: 'deleted', desired: 'deleted' }, [], 'start', false)).toMatchObject({
      code: 'workspace-deleted',
    });
  });
});

test('deleted can be reached from every status, and is final', () => {
  for (const status of workspaceStatuses) {
    if (status === 'deleted') continue;
    const reached = new Set<(typeof workspaceStatuses)[number]>([status]);
    for (const from of reached) for (const to of allowedStatusChanges[from]) reached.add(to);
    expect(reached.has('deleted')).toBe(true);
  }
  expect(allowedStatusChanges.deleted).toEqual([]);
});
