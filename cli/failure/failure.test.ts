import { expect, test } from 'vitest';
import { toFailure } from './failure.ts';

const refusal = (code: string, path?: string) =>
  Object.assign(new Error(`${code}: words of the system, write`), {
    code,
    errno: -28,
    syscall: 'write',
    path,
  });

test.each([
  'ENOSPC',
  'EDQUOT',
  'EACCES',
  'EROFS',
  'EMFILE',
  'ENAMETOOLONG',
  'EIO',
  'EREMOTEIO',
])('%s is the refusal of the system, never a fault in cde', (code) => {
  const named = toFailure(refusal(code, '/home/ada/x'));
  expect([named.code, named.message]).toEqual([
    'file-failed',
    expect.stringMatching(new RegExp(`^/home/ada/x cannot be used: .*\\(${code}\\)\\.$`)),
  ]);
  // For open files, Node's errors contain no path.
  expect(toFailure(refusal(code))).toMatchObject({
    code: 'system-refused',
    message: expect.stringContaining(`(${code})`),
  });
});

test('an unexpected error stays one', () => {
  expect(toFailure(new TypeError('x is undefined')).code).toBe('internal');
});
