import { expect, test } from 'vitest';
import type { Kube } from '../api/models.ts';
import { describeKernelProfile } from './kernel-profiles.ts';

const node = (name: string, labels: Record<string, string>, told?: object): Kube<'Node'> => ({
  apiVersion: 'v1',
  kind: 'Node',
  metadata: {
    name,
    labels,
    annotations: told ? { 'cde.dev/kernel-profiles': JSON.stringify(told) } : {},
  },
});

test('one node that keeps the profile is enough', () => {
  const nodes = [node('a', {}), node('b', { 'cde.dev/kernel-profile.scylla': 'ready' })];
  expect(describeKernelProfile('scylla', nodes)).toBeNull();
  expect(describeKernelProfile('scylla', [nodes[0]!])).toMatchObject({
    code: 'kernel-profile-missing',
    message: 'No node of the cluster keeps the kernel profile scylla.',
    fault: 'user',
  });
});

test("noded's own reason is passed on, and otherwise what there is", () => {
  const conflict = {
    state: 'not-ready',
    reason: 'conflict',
    message: 'vm.swappiness is to be 1 here and 2 by b.',
  };
  const nodes = ['n1', 'n2', 'n3', 'n4'].map((name) =>
    node(name, {}, { profiles: { a: conflict, other: { state: 'ready' } } }),
  );
  expect(describeKernelProfile('a', nodes)?.detail).toBe(
    `n1: ${conflict.message}\nn2: ${conflict.message}\nn3: ${conflict.message}\nand 1 more`,
  );
  const absent = describeKernelProfile('gone', nodes);
  expect(absent?.detail).toBeUndefined();
  expect(absent?.hint).toContain('there are: a, other');
  expect(describeKernelProfile('gone', [node('n', {}, { profiles: {}, fault: '1:1 faulty' })])?.detail).toBe(
    'n: 1:1 faulty',
  );
  const odd = node('n', {});
  odd.metadata.annotations = { 'cde.dev/kernel-profiles': '{' };
  expect(describeKernelProfile('gone', [odd])).toMatchObject({ code: 'kernel-profile-missing' });
});
