import { describe, expect, test } from 'vitest';
import type { Kube } from '../../providers/kubernetes/api/models.ts';
import { classifyOrphans, type WorkspaceRecord } from './classify.ts';

const now = new Date('2026-03-01T12:00:00Z');
const ago = (minutes: number) => new Date(now.getTime() - minutes * 60_000);
const id = '01990000-0000-7000-8000-000000000001';

const row = (more: Partial<WorkspaceRecord> = {}): WorkspaceRecord => ({
  id,
  owner: 'ada',
  name: 'web',
  status: 'running',
  cluster: 'one',
  namespace: 'cde-ada-web',
  updatedAt: ago(120),
  deletedAt: null,
  homeKeptUntil: null,
  ...more,
});
const namespace = (minutes = 120, more: object = {}, status: object = {}): Kube<'Namespace'> => ({
  apiVersion: 'v1',
  kind: 'Namespace',
  metadata: {
    name: 'cde-ada-web',
    creationTimestamp: ago(minutes).toISOString(),
    labels: { 'cde.dev/workspace': id },
    ...more,
  },
  status,
});
const volume = (home: string, phase: string): Kube<'PersistentVolume'> => ({
  apiVersion: 'v1',
  kind: 'PersistentVolume',
  metadata: {
    name: 'pvc-1',
    creationTimestamp: ago(120).toISOString(),
    labels: { 'cde.dev/home': home, 'cde.dev/workspace': id, 'cde.dev/owner': 'ada', 'cde.dev/name': 'web' },
  },
  status: { phase },
});
const look = (
  rows: WorkspaceRecord[],
  namespaces: Kube<'Namespace'>[] = [],
  volumes: Kube<'PersistentVolume'>[] = [],
) => classifyOrphans({ clusters: [{ cluster: 'one', namespaces, volumes }], rows, now });
const orphans = (...args: Parameters<typeof look>) => look(...args).map(({ orphan }) => orphan);

describe('namespaces', () => {
  test('the namespace of an existing workspace is not an orphan, whatever its build does', () => {
    for (const status of [
      'pending',
      'starting',
      'running',
      'stopping',
      'stopped',
      'failed',
      'deleting',
    ] as const)
      expect(orphans([row({ status })], [namespace()])).toEqual([]);
    expect(orphans([row({ status: 'pending', cluster: null, namespace: null })], [namespace()])).toEqual([]);
  });

  test('a namespace without a row or of a deleted workspace is deleted; a young one is left alone', () => {
    expect(orphans([], [namespace()])).toMatchObject([
      {
        kind: 'namespace',
        cluster: 'one',
        name: 'cde-ada-web',
        workspaceId: id,
        action: 'delete',
        reason: 'Its workspace is not in the database.',
      },
    ]);
    const deleted = row({ status: 'deleted', deletedAt: ago(30) });
    expect(orphans([deleted], [namespace()])).toMatchObject([
      { action: 'delete', reason: 'Its workspace ada/web was deleted.' },
    ]);
    expect(orphans([{ ...deleted, deletedAt: ago(1) }], [namespace()])).toEqual([]);
    expect(orphans([], [namespace(59)])).toEqual([]);
  });

  test('a namespace whose workspace has moved is only reported', () => {
    expect(orphans([row({ cluster: 'two' })], [namespace()])).toMatchObject([
      { action: 'report', reason: 'Its workspace ada/web is now in cde-ada-web on two.' },
    ]);
  });

  test('a namespace whose deletion does not finish is reported with what blocks it', () => {
    const ending = (minutes: number) =>
      namespace(
        300,
        { deletionTimestamp: ago(minutes).toISOString() },
        {
          conditions: [
            {
              type: 'NamespaceFinalizersRemaining',
              status: 'True',
              message:
                'Some content in the namespace has finalizers remaining: example.com/x in 1 resource instances',
            },
          ],
        },
      );
    expect(orphans([], [ending(10)])).toEqual([]);
    expect(orphans([], [ending(70)])).toMatchObject([
      {
        action: 'report',
        reason:
          'Its deletion does not finish: Some content in the namespace has finalizers remaining: example.com/x in 1 resource instances.',
      },
    ]);
  });
});

describe('workspaces', () => {
  test('a running workspace without its namespace is reconciled; a stopped one is reported', () => {
    expect(look([row()])).toMatchObject([
      { orphan: { kind: 'workspace', name: 'ada/web', action: 'report' }, missingWorkspaceId: id },
    ]);
    const [stopped] = look([row({ status: 'stopped' })]);
    expect(stopped!.orphan.reason).toBe(
      'Its namespace cde-ada-web is gone. The next start creates it again.',
    );
    expect(stopped!.missingWorkspaceId).toBeUndefined();
  });

  test('a workspace is ignored while it builds, just after a change, and if its cluster is not synced', () => {
    expect(look([row({ status: 'starting' })])).toEqual([]);
    expect(look([row({ updatedAt: ago(1) })])).toEqual([]);
    expect(look([row({ cluster: 'away' })])).toEqual([]);
  });
});

describe('homes', () => {
  test('a home without a row is kept and reported', () => {
    expect(orphans([], [], [volume('kept', 'Released')])).toMatchObject([
      {
        kind: 'home',
        name: 'pvc-1',
        action: 'keep',
        reason: 'The home of ada/web, which is not in the database.',
      },
    ]);
    expect(
      orphans([row({ status: 'deleted', deletedAt: ago(60) })], [], [volume('kept', 'Released')]),
    ).toMatchObject([{ reason: 'The home of ada/web, which the server no longer keeps.' }]);
  });

  test('a home in use, retained by its row, or discarded is not an orphan', () => {
    expect(orphans([], [], [volume('used', 'Bound')])).toEqual([]);
    expect(orphans([row()], [namespace()], [volume('used', 'Released')])).toEqual([]);
    const kept = row({ status: 'deleted', deletedAt: ago(60), homeKeptUntil: ago(-600) });
    expect(orphans([kept], [], [volume('kept', 'Released')])).toEqual([]);
    expect(orphans([], [], [volume('given-up', 'Released')])).toEqual([]);
  });
});
