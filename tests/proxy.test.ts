import { execFileSync, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { createServer as createTlsServer } from 'node:tls';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { cloneDatabase } from './kit/database.ts';
import { type Machine, makeMachine } from './kit/machine.ts';

/**
 * A laptop behind a proxy: the server answers at an https address that only the proxy can resolve, so whatever went
 * directly would fail. An ingress of the test's own ends TLS; the server and its satellite are the real ones.
 */
const name = 'cde.company.test';
let machine: Machine;
let laptop: NodeJS.ProcessEnv;
const asked: string[] = [];
let refuses = false;
const sockets = new Set<Socket>();

const proxy = createServer().on('connect', (request, socket: Socket) => {
  sockets.add(socket);
  socket.on('error', () => {});
  asked.push(request.url!);
  const good = request.headers['proxy-authorization'] === `Basic ${btoa('ada:lovelace')}`;
  if (refuses || !good || request.url !== `${name}:443`)
    return socket.end(`HTTP/1.1 ${good ? '403 Forbidden' : '407 Proxy Authentication Required'}\r\n\r\n`);
  const onward = connect((ingress.address() as AddressInfo).port, '127.0.0.1', () => {
    socket.write('HTTP/1.1 200 OK\r\n\r\n');
    onward.pipe(socket).pipe(onward);
  });
  onward.on('error', () => socket.destroy());
  socket.on('close', () => onward.destroy());
});
const ingress = createTlsServer();

const hasTools = ['openssl', 'ssh'].every(
  (each) => spawnSync('sh', ['-c', `command -v ${each}`]).status === 0,
);
if (!hasTools) console.warn('The proxy is not tested: that needs openssl and the OpenSSH client.');

beforeAll(async () => {
  if (!hasTools) return;
  machine = await makeMachine({ DATABASE_URL: await cloneDatabase() });
  await mkdir(machine.env.HOME!, { recursive: true });
  const [key, certificate] = ['key', 'cert'].map((each) => join(machine.folder, `${each}.pem`));
  execFileSync('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
    ...[
      '-subj',
      `/CN=${name}`,
      '-addext',
      `subjectAltName=DNS:${name}`,
      '-keyout',
      key!,
      '-out',
      certificate!,
    ],
  ]);
  ingress.setSecureContext({ key: await readFile(key!), cert: await readFile(certificate!) });
  const [host, port] = machine.env.CDE_LISTEN!.split(':');
  ingress.on('secureConnection', (socket) => {
    sockets.add(socket);
    const onward = connect(Number(port), host!, () => onward.pipe(socket).pipe(onward));
    onward.on('error', () => socket.destroy());
    socket.on('error', () => onward.destroy());
    socket.on('close', () => onward.destroy());
  });
  proxy.listen(0, '127.0.0.1');
  ingress.listen(0, '127.0.0.1');
  await Promise.all([once(proxy, 'listening'), once(ingress, 'listening')]);
  await machine.start();
  const { servers } = JSON.parse(await readFile(join(machine.env.CDE_CONFIG_DIR!, 'config.json'), 'utf8'));
  const [{ token }] = Object.values(servers) as [{ token: string }];
  laptop = {
    CDE_URL: `https://${name}`,
    CDE_TOKEN: token,
    NODE_EXTRA_CA_CERTS: certificate,
    HTTPS_PROXY: `http://ada:lovelace@127.0.0.1:${(proxy.address() as AddressInfo).port}`,
  };
});
afterAll(async () => {
  for (const socket of sockets) socket.destroy();
  proxy.close();
  ingress.close();
  await machine?.remove();
});

const cde = (env: NodeJS.ProcessEnv, ...args: string[]) =>
  machine.begin(args, { ...laptop, ...env } as Record<string, string>).ended;

test.skipIf(!hasTools)('a command and a session go through it', async () => {
  expect(await cde({}, 'list', '--json')).toMatchObject({ code: 0 });
  const ran = await cde({}, 'ssh', 'hello', '--path=relay', '--', 'echo there');
  expect(ran).toMatchObject({ code: 0, stdout: 'there\n' });
  expect(new Set(asked)).toEqual(new Set([`${name}:443`]));
});

test.skipIf(!hasTools)(
  'what it refuses, and a proxy that is not there, are told with its place but no password',
  async () => {
    refuses = true;
    const refused = await cde({}, 'list');
    refuses = false;
    expect(refused).toMatchObject({ code: 6 });
    expect(refused.stderr).toContain('403 Forbidden');
    const gone = await cde({ HTTPS_PROXY: 'http://ada:lovelace@127.0.0.1:9' }, 'list');
    expect(gone).toMatchObject({ code: 6 });
    expect(gone.stderr).toContain('HTTPS_PROXY names the proxy 127.0.0.1:9');
    expect(refused.stderr + gone.stderr).not.toContain('lovelace');
    const nonsense = await cde({ HTTPS_PROXY: 'socks5://127.0.0.1:9' }, 'list');
    expect(nonsense.stderr).toContain('HTTPS_PROXY is not the URL of an HTTP proxy');
  },
);

test.skipIf(!hasTools)('NO_PROXY goes directly', async () => {
  asked.length = 0;
  const direct = await cde({ NO_PROXY: '.company.test' }, 'list');
  expect(direct).toMatchObject({ code: 6 });
  expect(direct.stderr).toContain('ENOTFOUND');
  expect(asked).toEqual([]);
});
