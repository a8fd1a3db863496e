import { expect, test } from 'vitest';
import { parsePorts, parseReversePorts } from './port-specs.ts';

const one = (local: number, host: string, remote: number, protocol = 'tcp') => ({
  protocol,
  local,
  host,
  remote,
});

test.each([
  ['3000', [one(3000, 'localhost', 3000)]],
  ['8080:80', [one(8080, 'localhost', 80)]],
  ['0:80', [one(0, 'localhost', 80)]],
  ['5432:db.internal:5432', [one(5432, 'db.internal', 5432)]],
  ['5432:[::1]:5432', [one(5432, '::1', 5432)]],
  ['5353/udp', [one(5353, 'localhost', 5353, 'udp')]],
  ['53:8.8.8.8:53/udp', [one(53, '8.8.8.8', 53, 'udp')]],
  ['1-2/tcp', [one(1, 'localhost', 1), one(2, 'localhost', 2)]],
  ['8000-8002', [one(8000, 'localhost', 8000), one(8001, 'localhost', 8001), one(8002, 'localhost', 8002)]],
  ['9000-9001:db:8000-8001', [one(9000, 'db', 8000), one(9001, 'db', 8001)]],
])('%s', (text, expected) => {
  expect(parsePorts(text)).toEqual(expected);
});

test.each([
  '',
  'x',
  '0',
  '65536',
  '80:',
  ':80',
  'db:80',
  '1-2:1-3',
  '9-8',
  '0-2:1-3',
  '1:2:3:4',
  '1-2000',
  '-1',
  '1/sctp',
  '1/udp:2',
])('refused: %s', (text) => {
  expect(() => parsePorts(text)).toThrow();
});

test.each([
  ['3000', [{ remote: 3000, host: 'localhost', local: 3000 }]],
  ['0:80', [{ remote: 0, host: 'localhost', local: 80 }]],
  ['9000:db.office:5432', [{ remote: 9000, host: 'db.office', local: 5432 }]],
])('reverse: %s', (text, expected) => {
  expect(parseReversePorts(text)).toEqual(expected);
});

test('reverse, refused: UDP', () => {
  expect(() => parseReversePorts('53/udp')).toThrow('only TCP');
});
