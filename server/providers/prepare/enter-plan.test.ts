import { expect, test } from 'vitest';
import { findEnterFailure } from './enter-plan.ts';

const printed = (failure: object) => `started\n${JSON.stringify(failure)}\nbye\n`;

test('the error with which the first program ended is found among its lines', () => {
  const failure = { code: 'user-unknown', message: 'The image has no user "ada".' };
  expect(findEnterFailure(printed(failure))).toEqual(failure);
});

test.each([
  'no error at all',
  '{"code":"broken","message":"an \\x escape"}',
  '{"code":"cut","message":"the log ends he',
  '{"code":"two","message":"a"},{"code":"b","message":"c"}',
])('what is not such an error is ignored: %s', (line) => {
  expect(findEnterFailure(`${line}\n`)).toBeNull();
});
