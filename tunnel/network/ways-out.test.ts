import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import type { NetworkInterfaceInfo } from 'node:os';
import { expect, onTestFinished, test } from 'vitest';
import { outgoingAddresses } from './ways-out.ts';

const noHardware = '00:00:00:00:00:00';
const address = (cidr: string, mac = '02:42:ac:11:00:02'): NetworkInterfaceInfo => ({
  address: cidr.split('/')[0]!,
  netmask: '',
  mac,
  internal: false,
  cidr,
  ...(cidr.includes(':') ? { family: 'IPv6', scopeid: 0 } : { family: 'IPv4' }),
});

const header = 'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT';
const route = (name: string, destination: string, gateway: string, mask: string) =>
  [name, destination, gateway, '0001', 0, 0, 0, mask, 0, 0, 0].join('\t');
const table = (...routes: string[]) => [header, ...routes, ''].join('\n');

const uplink = [
  route('eth0', '00000000', '010200C0', '00000000'),
  route('eth0', '000200C0', '00000000', '00FFFFFF'),
];
const docker = route('docker0', '000011AC', '00000000', '0000FFFF');

test('networks of containers on this machine are not where it is', () => {
  const interfaces = { eth0: [address('192.0.2.2/24')], docker0: [address('172.17.0.1/16')] };
  expect(outgoingAddresses(interfaces, { ipv4: table(...uplink, docker), ipv6: '' })).toEqual(['192.0.2.2']);
});

test('a bridge that is the way out counts, as on hosts of virtual machines', () => {
  const interfaces = { br0: [address('192.0.2.2/24')] };
  const ipv4 = table(...uplink.map((line) => line.replace('eth0', 'br0')));
  expect(outgoingAddresses(interfaces, { ipv4, ipv6: '' })).toEqual(['192.0.2.2']);
});

test('a VPN counts, whose routes have no gateway', () => {
  const interfaces = { eth0: [address('192.0.2.2/24')], wg0: [address('10.8.0.2/24')] };
  const ipv4 = table(
    ...uplink,
    route('wg0', '0000080A', '00000000', '00FFFFFF'),
    route('wg0', '0000000A', '00000000', '000000FF'),
  );
  expect(outgoingAddresses(interfaces, { ipv4, ipv6: '' })).toEqual(['192.0.2.2', '10.8.0.2']);
});

test('a VPN counts whose routes are in a table of their own, such as those of wg-quick', () => {
  const interfaces = { eth0: [address('192.0.2.2/24')], wg0: [address('10.8.0.2/24', noHardware)] };
  const ipv4 = table(...uplink, route('wg0', '0000080A', '00000000', '00FFFFFF'));
  expect(outgoingAddresses(interfaces, { ipv4, ipv6: '' })).toEqual(['192.0.2.2', '10.8.0.2']);
});

test('an interface counts that only has IPv6', () => {
  const interfaces = { eth0: [address('2001:db8::2/64')], docker0: [address('172.17.0.1/16')] };
  const zero = '0'.repeat(32);
  const gateway = '20010db8000000000000000000000001';
  const ipv6 = `${zero} 00 ${zero} 00 ${gateway} 00000064 00000001 00000000 00000003     eth0\n`;
  expect(outgoingAddresses(interfaces, { ipv4: table(docker), ipv6 })).toEqual(['2001:db8::2']);
});

test('without a route that leaves the machine, and without a table, all addresses count', () => {
  const interfaces = { docker0: [address('172.17.0.1/16')], eth0: [address('192.0.2.2/24')] };
  for (const ipv4 of ['', table(docker, uplink[1]!)])
    expect(outgoingAddresses(interfaces, { ipv4, ipv6: '' })).toEqual(['172.17.0.1', '192.0.2.2']);
});

test.skipIf(process.platform !== 'linux' || process.getuid?.() !== 0)(
  'a bridge that comes and goes changes nothing',
  () => {
    const name = `cdebr${randomBytes(3).toString('hex')}`;
    const ip = (...args: string[]) => execFileSync('ip', args);
    const before = outgoingAddresses();
    ip('link', 'add', name, 'type', 'bridge');
    onTestFinished(() => void ip('link', 'delete', name));
    ip('address', 'add', '198.51.100.1/28', 'dev', name);
    ip('link', 'set', name, 'up');
    expect(outgoingAddresses()).toEqual(before);
    expect(before).not.toEqual([]);
  },
);
