import { once } from 'node:events';
import { connect } from 'node:net';
import { expect, test } from 'vitest';
import { parseAddress } from '../selection/offers.ts';
import { classifyAddress, lookupAllowed } from './addresses.ts';

/** The metadata address, as resolvers and URL parsers take it. */
const metadata = [
  '169.254.169.254',
  '2852039166',
  '0xa9fea9fe',
  '0xA9.0xFE.0xA9.0xFE',
  '0251.0376.0251.0376',
  '025177524776',
  '169.254.43518',
  '169.16689662',
  '::ffff:169.254.169.254',
  '::ffff:a9fe:a9fe',
  '0:0:0:0:0:ffff:a9fe:a9fe',
  '::169.254.169.254',
  '::ffff:0:169.254.169.254',
  '64:ff9b::169.254.169.254',
  '64:ff9b::a9fe:a9fe',
  '64:ff9b:1::a9fe:a9fe',
  '2002:a9fe:a9fe::',
  '2002:a9fe:a9fe::1',
  'fd00:ec2::254',
  'fd00:0ec2:0:0:0:0:0:0254',
  'fe80::a9fe:a9fe',
  'fe80::1%eth0',
];

test.each(metadata)('%s is forbidden, and so is an offer that leads there', (address) => {
  expect(classifyAddress(address)).toBe('forbidden');
  expect(classifyAddress(`[${address}]`)).toBe('forbidden');
  const host = address.includes(':') ? `[${address}]` : address;
  expect(parseAddress(`${host}:80`)).toBeNull();
});

test.each([
  '0.0.0.0',
  '0',
  '::',
  '224.0.0.1',
  'ff02::1',
  '255.255.255.255',
  '100.100.100.200',
])('%s is forbidden: nobody is there, or everybody', (address) =>
  expect(classifyAddress(address)).toBe('forbidden'));

test.each([
  '127.0.0.1',
  '127.1',
  '2130706433',
  '0x7f000001',
  '::1',
  '::ffff:127.0.0.1',
  '64:ff9b::127.0.0.1',
])('%s is loopback', (address) => expect(classifyAddress(address)).toBe('loopback'));

test.each([
  '10.0.0.1',
  '192.168.1.1',
  '203.0.113.7',
  '100.64.0.1',
  'fd12::1',
  '2001:db9::1',
  '64:ff9b::10.0.0.1',
])('%s may be an agent or a satellite', (address) => expect(classifyAddress(address)).toBe('other'));

test('names are no addresses, and are looked at when they are connected to', async () => {
  for (const name of ['metadata.google.internal', 'example.com', 'a9fea9fe', ''])
    expect(classifyAddress(name)).toBeNull();
  const looked = (host: string) =>
    new Promise((resolve) =>
      lookupAllowed(host, { all: true }, (error, found) => resolve(error?.code ?? found)),
    );
  expect(await looked('169.254.169.254')).toBe('EACCES');
  expect(await looked('localhost')).toEqual(expect.arrayContaining([expect.objectContaining({ family: 4 })]));
  const socket = connect({ host: 'name.invalid', port: 1, lookup: lookupAllowed });
  expect(((await once(socket, 'error').catch((error) => [error])) as [Error])[0]).toBeInstanceOf(Error);
});
