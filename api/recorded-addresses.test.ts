import { expect, test } from 'vitest';
import { keptAddress, withKeptAddresses } from './recorded-addresses.ts';

test.each([
  ['203.0.113.9:41022', '203.0.113.0/24'],
  ['203.0.113.9', '203.0.113.0/24'],
  ['203.0.113.0/24', '203.0.113.0/24'],
  ['[2001:db8:1:2::7]:41022', '2001:db8:1::/48'],
  ['[2001:DB8:0001:2:3:4:5:6]:1', '2001:db8:1::/48'],
  ['2001:db8:1::/48', '2001:db8:1::/48'],
  ['[fe80::1%eth0]:22', 'fe80:0:0::/48'],
  ['[::1]:22', '0:0:0::/48'],
  ['build-7.example.com:22', ''],
  ['', ''],
])('of %s the network is %j', (address, network) => {
  expect(keptAddress(address, 'network')).toBe(network);
  expect(keptAddress(address, 'none')).toBe('');
  expect(keptAddress(address, 'full')).toBe(address);
});

test('paths through satellites and rows without a path stay as they are', () => {
  const relay = { path: { kind: 'relay', via: 'https://203.0.113.9' } };
  const direct = { path: { kind: 'direct-tcp', via: '203.0.113.9:22' }, ms: 1 };
  expect(withKeptAddresses([relay, direct, { path: null }, { ms: 2 }], 'network')).toEqual([
    relay,
    { path: { kind: 'direct-tcp', via: '203.0.113.0/24' }, ms: 1 },
    { path: null },
    { ms: 2 },
  ]);
});
