import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { TunnelError } from '@cde/tunnel/errors.ts';
import { expect, onTestFinished, test } from 'vitest';
import { connectInWorkspace, listenAddresses, readAddress } from './listen-address.ts';

const header =
  '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n';
const line = (local: string, state = '0A') =>
  `   0: ${local} 00000000:0000 ${state} 00000000:00000000 00:00000000 00000000  1000        0 4242 1\n`;

/** A /proc/net with these lines in its tables. */
async function makeRoot(tables: Record<string, string[]>): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), 'cde-proc-'));
  onTestFinished(() => rm(root, { recursive: true }));
  await mkdir(join(root, 'proc/net'), { recursive: true });
  for (const [name, lines] of Object.entries(tables))
    await writeFile(join(root, 'proc/net', name), header + lines.join(''));
  return root;
}

test.each([
  ['0100007F', '127.0.0.1'],
  ['00000000', '127.0.0.1'],
  ['0501A8C0', '192.168.1.5'],
  ['00000000000000000000000001000000', '::1'],
  ['00000000000000000000000000000000', '::1'],
  ['0000000000000000FFFF00000501A8C0', '192.168.1.5'],
  ['B80D01200000000000000000FE000000', '2001:db8::fe'],
  ['nonsense', null],
])('%s is %s', (hex, address) => {
  expect(readAddress(hex)).toBe(address);
});

test('where a port listens, the loopback first; other ports, states and protocols do not count', async () => {
  const root = await makeRoot({
    tcp: [line('0501A8C0:0BB8'), line('0601A8C0:0BB9'), line('0701A8C0:0BB8', '01')],
    tcp6: [line('00000000000000000000000001000000:0BB8')],
    udp: [line('0501A8C0:0BB8', '07')],
  });
  expect(await listenAddresses('tcp', 3000, root)).toEqual(['::1', '192.168.1.5']);
  expect(await listenAddresses('tcp', 3001, root)).toEqual(['192.168.1.6']);
  expect(await listenAddresses('udp', 3000, root)).toEqual(['192.168.1.5']);
  expect(await listenAddresses('tcp', 3002, root)).toEqual([]);
  expect(await listenAddresses('tcp', 3000, '/nowhere')).toEqual([]);
});

const own = Object.values(networkInterfaces())
  .flatMap((each) => each ?? [])
  .find(({ internal, family }) => !internal && family === 'IPv4')?.address;
const hasIPv6 = Object.values(networkInterfaces()).some((each) =>
  each?.some(({ address }) => address === '::1'),
);

test.each([
  ['::1', hasIPv6],
  [own ?? 'the workspace’s own address', own !== undefined],
  ['127.0.0.1', true],
])('a program on %s alone is reached by every loopback name', async (address, isPossible) => {
  if (!isPossible) return;
  const program = createServer((socket) => socket.end(`${socket.localAddress}`));
  await once(program.listen(0, address), 'listening');
  onTestFinished(() => void program.close());
  const { port } = program.address() as AddressInfo;
  for (const host of ['localhost', '127.0.0.1', '::1']) {
    const socket = (await connectInWorkspace({ kind: 'tcp', host, port })) as Socket;
    const [said] = await once(socket, 'data');
    expect(String(said)).toBe(address);
    socket.destroy();
  }
});

test('nothing listens: refused as before; a foreign name is not looked up', async () => {
  const refused = new TunnelError('target-refused', 'localhost port 3000');
  const tried: string[] = [];
  const connect = async ({ host }: any) => {
    tried.push(host);
    throw refused;
  };
  const root = await makeRoot({ tcp: [line('0501A8C0:0BB8')] });
  const target = { kind: 'tcp', host: 'localhost', port: 3000 } as const;
  await expect(connectInWorkspace(target, { connect, root })).rejects.toBe(refused);
  await expect(connectInWorkspace({ ...target, host: 'db.internal' }, { connect, root })).rejects.toBe(
    refused,
  );
  await expect(connectInWorkspace({ ...target, port: 1 }, { connect, root })).rejects.toBe(refused);
  expect(tried).toEqual(['localhost', '192.168.1.5', 'db.internal', 'localhost']);
});

test('datagrams go to where the program is bound', async () => {
  const asked: string[] = [];
  const connect = async ({ host }: any) => void asked.push(host) as never;
  const root = await makeRoot({ udp6: [line('00000000000000000000000001000000:0035', '07')] });
  await connectInWorkspace({ kind: 'udp', host: 'localhost', port: 53 }, { connect, root });
  await connectInWorkspace({ kind: 'udp', host: 'localhost', port: 54 }, { connect, root });
  expect(asked).toEqual(['::1', 'localhost']);
});
