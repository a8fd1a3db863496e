import { constants } from 'node:os';
import { expect, test } from 'vitest';
import { isSystemError, systemErrorReason, systemErrorText } from './system-errors.ts';

const refusal = (code: string, message = `${code}: some words, open '/x'`) =>
  Object.assign(new Error(message), { code, errno: -1, syscall: 'open', path: '/x' });

test.each([
  'ENOSPC',
  'EDQUOT',
  'EACCES',
  'EPERM',
  'EROFS',
  'EMFILE',
  'ENFILE',
  'ENAMETOOLONG',
  'EIO',
  'ENOMEM',
  'EOPNOTSUPP',
])('%s has a reason and a hint in words', (code) => {
  expect(systemErrorText(code)).toEqual({
    reason: expect.stringMatching(/^[a-z]/),
    hint: expect.stringMatching(/\.$/),
  });
  expect(systemErrorReason(refusal(code))).toBe(`${systemErrorText(code)!.reason} (${code})`);
});

test('any other code of the system keeps its words, and is still the system’s refusal', () => {
  for (const code of Object.keys(constants.errno))
    expect(systemErrorReason(refusal(code))).toContain(`(${code})`);
  expect(systemErrorReason(refusal('EREMOTEIO'))).toBe('some words (EREMOTEIO)');
});

test('what is a fault of ours is none', () => {
  for (const error of [new Error('x'), new TypeError('x'), { code: 'ENOSPC' }, null, 'ENOSPC'])
    expect([isSystemError(error), systemErrorReason(error)]).toEqual([false, undefined]);
  expect(systemErrorText('constructor')).toBeUndefined();
});
