import { expect, test } from 'vitest';
import { readName } from './names.ts';

test.each([
  [Buffer.from('ü 😀.txt'), 'ü 😀.txt', 'ü 😀.txt'],
  [Buffer.from('caf\xe9.txt', 'latin1'), null, 'caf\\xE9.txt'],
  [Buffer.from([0xff, 0x61, 0xc3]), null, '\\xFFa\\xC3'],
  [Buffer.concat([Buffer.from('ü\ufffd'), Buffer.from([0x80])]), null, 'ü\ufffd\\x80'],
])('%j', (bytes, text, shown) => expect(readName(bytes)).toEqual({ text, shown }));
