import { expect, test } from 'vitest';
import { codeOf, localPath } from './next.ts';

test.each(['/', '/workspaces/ada/web?tab=log#end', '/cli-login?code=ABCD-EFGH'])('goes on to %s', (path) => {
  expect(localPath(path)).toBe(path);
});

test.each([
  'https://elsewhere.example',
  '//elsewhere.example',
  '/\\elsewhere.example',
  '/a\\b',
  '/\n/elsewhere.example',
  'javascript:alert(1)',
  '/sign-in?next=/sign-in',
  '/api/v1/auth/sign-out',
  '',
  undefined,
  7,
])('drops %j', (path) => {
  expect(localPath(path)).toBeUndefined();
});

test('reads the code behind #', () => {
  expect(codeOf('#code=cde_link_abc-_1')).toBe('cde_link_abc-_1');
  expect(codeOf('')).toBeNull();
  expect(codeOf('#top')).toBeNull();
});
