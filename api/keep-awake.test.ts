import { expect, test } from 'vitest';
import { LeaseInput } from './activity.ts';
import { reasonOf } from './keep-awake.ts';

test.each([
  [['sh', '-c', 'make\n./run\tx\u2028y'], 'sh -c make ./run x y'],
  // The 200th UTF-16 unit is the first half of an emoji.
  [[`${'a'.repeat(199)}😀`], 'a'.repeat(199)],
  [[`${'a'.repeat(198)}😀b`], `${'a'.repeat(198)}😀`],
  [['\ud83d', 'x'], '\ufffd x'],
  [[], ''],
])('the API accepts the reason of the command %j', (command, reason) => {
  expect(reasonOf(command)).toBe(reason);
  expect(LeaseInput.parse({ seconds: 60, reason: reasonOf(command) }).reason).toBe(reason);
});
