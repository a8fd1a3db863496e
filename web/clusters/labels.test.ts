import { expect, test } from 'vitest';
import { readLabels, writeLabels } from './labels.ts';

test('labels survive writing and reading', () => {
  const labels = { gpu: 'a100', tier: '', note: 'a=b' };
  expect(readLabels(writeLabels(labels))).toEqual({ labels });
  expect(readLabels('  gpu = a100 \n\n')).toEqual({ labels: { gpu: 'a100' } });
  expect(readLabels('')).toEqual({ labels: {} });
});

test.each([
  ['gpu', '“gpu” is not name=value.'],
  ['=a100', '“=a100” is not name=value.'],
  ['gpu=a\ngpu=b', 'gpu appears twice.'],
  [`gpu=${'x'.repeat(64)}`, 'gpu… is longer than 63 characters.'],
])('%j is refused', (text, problem) => {
  expect(readLabels(text)).toEqual({ problem });
});
