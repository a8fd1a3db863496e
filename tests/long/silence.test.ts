import { describe, test } from 'vitest';
import { aCommand, asleep, aTransfer, cut, lacking, useServer } from '../faults/network/laptop.ts';

/** Ten minutes without a network, and asleep. All at the same time, because they mostly wait. */
useServer();
const seconds = 600;

describe.skipIf(lacking).concurrent('a session survives ten minutes', () => {
  test('of silence: a running command', () => aCommand(20, cut(seconds)));
  test('of silence: rsync of 200 MB', () => aTransfer(cut(seconds)));
  test('of sleep: a running command', () => aCommand(20, asleep(seconds)));
  test('of sleep: rsync of 200 MB', () => aTransfer(asleep(seconds)));
});
