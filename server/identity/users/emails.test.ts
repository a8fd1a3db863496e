import { expect, test } from 'vitest';
import { lowerAscii, normalizeEmail } from './emails.ts';

test('addresses of one mailbox have one canonical form', () => {
  expect(normalizeEmail('Ada.L+x@Example.COM')).toBe('ada.l+x@example.com');
  expect(normalizeEmail('ada@b\u00fccher.example')).toBe('ada@xn--bcher-kva.example');
  expect(normalizeEmail('ada@xn--bcher-kva.example')).toBe('ada@xn--bcher-kva.example');
});

test.each([
  ['a Kelvin sign', '\u212aim@example.com'],
  ['a long s', '\u017fam@example.com'],
  ['a full-width letter', '\uff4bim@example.com'],
  ['a letter of another script', '\u043aim@example.com'],
  ['a combining accent', 'kim\u0301@example.com'],
  ['nothing to be seen', 'kim\u200b@example.com'],
  ['a Kelvin sign in the domain', 'kim@\u212aorp.example'],
  ['a full-width domain', 'kim@\uff45xample.com'],
  ['a space', 'kim @example.com'],
  ['two domains', 'kim@example.com@evil.example'],
  ['no domain', 'kim@'],
  ['no name', '@example.com'],
  ['no @', 'kim'],
  ['too much', `${'k'.repeat(250)}@example.com`],
])('an address with %s is not compared', (_, text) => {
  expect(normalizeEmail(text)).toBeNull();
});

test('only ASCII letters are lower-cased', () => {
  expect(lowerAscii('AZaz-\u212a\u0130')).toBe('azaz-\u212a\u0130');
});
