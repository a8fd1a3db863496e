import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { type EmbeddedPostgres, startEmbedded } from '@cde/server/database/embedded.ts';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { freePort } from '../kit/free-port.ts';
import { type Machine, makeMachine, type Server } from '../kit/machine.ts';
import { until } from '../kit/until.ts';

/**
 * A rolling upgrade with open sessions: two real servers on one database, stopped by SIGTERM and started again one after
 * the other. The test's load balancer sends each connection to the next server that is ready.
 */
let machine: Machine;
let embedded: EmbeddedPostgres;
const ports: number[] = [];
const servers: Server[] = [];
const sockets = new Set<Socket>();
/** The servers that are ready. */
const inService = new Set<number>();
let turn = 0;

const balancer = createServer((socket) => {
  sockets.add(socket);
  socket.on('error', () => {}).once('close', () => sockets.delete(socket));
  const attempt = (left: number) => {
    const there = [...inService].map((at) => ports[at]!);
    const onward = connect(there[turn++ % there.length]!, '127.0.0.1');
    onward.once('connect', () => {
      onward.off('error', failed);
      onward.on('error', () => socket.destroy()).once('close', () => socket.destroy());
      socket.once('close', () => onward.destroy());
      socket.pipe(onward).pipe(socket);
    });
    const failed = () => (left > 0 ? attempt(left - 1) : socket.destroy());
    onward.once('error', failed);
  };
  attempt(inService.size);
});

beforeAll(async () => {
  balancer.listen(0, '127.0.0.1');
  await once(balancer, 'listening');
  machine = await makeMachine({
    CDE_ACCESS_URL: `http://127.0.0.1:${(balancer.address() as AddressInfo).port}`,
    CDE_SECRET_KEY: 'the same secret for all replicas, long',
    CDE_LOCAL_PROVIDER: 'on',
  });
  embedded = await startEmbedded(join(machine.folder, 'database'), { fsync: 'off' });
  machine.env.DATABASE_URL = embedded.url;
  await mkdir(machine.env.HOME!, { recursive: true });
  for (const at of [0, 1]) {
    ports.push(await freePort());
    // The first server requests the access URL while it starts.
    if (at === 0) inService.add(at);
    servers.push(await start(at));
    await until(() => isReady(at), 'a ready server');
    inService.add(at);
  }
});
afterAll(async () => {
  for (const server of servers) await server.stop();
  for (const socket of sockets) socket.destroy();
  balancer.close();
  await embedded?.stop();
  await machine?.remove();
});

const start = (at: number) =>
  machine.start({
    CDE_LISTEN: `127.0.0.1:${ports[at]}`,
    CDE_REPLICA_URL: `http://127.0.0.1:${ports[at]}`,
  });

const isReady = (at: number) =>
  fetch(`http://127.0.0.1:${ports[at]}/readyz`).then(
    ({ ok }) => ok,
    () => false,
  );

test('sessions continue, and commands work all the time', async () => {
  // An earlier attempt may have left one stopped.
  for (const at of [0, 1]) {
    if (!(await isReady(at))) servers[at] = await start(at);
    inService.add(at);
  }
  const config = join(machine.env.HOME!, '.ssh/config');
  expect(await machine.cde('config-ssh', '--ssh-config', config)).toMatchObject({ code: 0 });
  // Enough sessions for each server to carry one.
  const sessions = Array.from({ length: 4 }, (_, at) =>
    machine.begin(
      ['ssh', 'hello', '--path=relay', '--', `for i in $(seq 400); do echo ${at} $i; sleep 0.1; done`],
      {
        CDE_BACKGROUND: 'off',
      },
    ),
  );
  for (const [at, session] of sessions.entries()) await session.says(`${at} 5\n`);
  for (const at of [0, 1]) {
    inService.delete(at);
    expect(await servers[at]!.stop()).toBe(0);
    expect(await machine.cde('list', '--json')).toMatchObject({ code: 0 });
    servers[at] = await start(at);
    await until(() => isReady(at), 'a ready server');
    inService.add(at);
    const next = await machine.cde('ssh', 'hello', '--', 'echo there');
    expect(next).toMatchObject({ code: 0, stdout: 'there\n', stderr: '' });
  }
  for (const [at, session] of sessions.entries()) {
    const printed = Array.from({ length: 400 }, (_, i) => `${at} ${i + 1}\n`).join('');
    expect(await session.ended).toMatchObject({ code: 0, stdout: printed, stderr: '' });
  }
});
