import { spawn } from 'node:child_process';
import { lstatSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createAgentLease } from '@cde/api/activity.ts';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { until } from '../../../tests/kit/until.ts';
import { makeServerClient } from '../../server/client.ts';
import { makeTestServer, type TestServer, token } from '../../testing.ts';
import { makeActivity } from '../activity.ts';
import { serveTools, type ToolSocket } from './socket.ts';

let server: TestServer;
let tools: ToolSocket;
let folder: string;
const activity = makeActivity();
beforeEach(async () => {
  server = await makeTestServer();
  folder = mkdtempSync(join(tmpdir(), 'cde-leases-'));
  tools = await serveTools({
    workspaceId: `leases-test-${process.pid}`,
    client: makeServerClient({ urls: server.url, token }),
    activity,
    idle: () => ({ stopsInMs: 1000 }),
  });
});
afterEach(async () => {
  await tools.close();
  await server.close();
  rmSync(folder, { recursive: true, force: true });
});

function call(method: string, path: string, body?: string): Promise<[status: number, body: unknown]> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath: tools.socket, method, path }, (response) => {
      let text = '';
      response.on('data', (chunk) => {
        text += chunk;
      });
      response.on('end', () => resolve([response.statusCode!, text === '' ? null : JSON.parse(text)]));
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

/** `cde …` in a session of the workspace. */
function cde(args: string[], socket = tools.socket) {
  const child = spawn(join(tools.folder, 'cde'), args, {
    cwd: folder,
    env: { PATH: process.env.PATH, CDE_AGENT_SOCKET: socket },
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      output += chunk;
    });
  const ended = new Promise<number | string>((resolve) =>
    child.once('close', (code, signal) => resolve(code ?? signal!)),
  );
  return { child, ended, output: () => output };
}

test('programs get and end leases, and see the activity, without a credential', async () => {
  activity.record('build', 'docker');
  const [created, lease] = await call('POST', '/keep-awake', '{"seconds":10800,"reason":"training"}');
  expect([created, lease]).toMatchObject([201, { by: 'workspace', reason: 'training' }]);
  expect(server.leases).toEqual([{ seconds: 10_800, reason: 'training' }]);
  const { id } = lease as { id: string };
  expect(await call('DELETE', `/keep-awake/${id}`)).toEqual([204, null]);
  expect(server.endedLeases).toEqual([id]);
  expect(await call('GET', '/activity')).toMatchObject([
    200,
    { signals: [{ signal: 'build', by: 'docker' }], idle: { stopsInMs: 1000 } },
  ]);
});

test('only the user of the workspace can connect', () => {
  expect(lstatSync(dirname(tools.socket)).mode & 0o777).toBe(0o700);
  expect(lstatSync(tools.socket).mode & 0o777).toBe(0o600);
});

test('nonsense is refused, and a refusal of the server is passed on', async () => {
  expect(await call('POST', '/keep-awake', 'nonsense')).toMatchObject([400, {}]);
  expect(await call('POST', '/keep-awake', '{"seconds":0}')).toMatchObject([400, {}]);
  expect(await call('POST', '/keep-awake', 'x'.repeat(10_000))).toMatchObject([413, {}]);
  expect(await call('GET', '/api/v1/agent/leases')).toMatchObject([404, {}]);
  expect(await call('DELETE', '/keep-awake/..%2f..%2f')).toMatchObject([404, {}]);
  server.answer(createAgentLease.path, 422);
  expect(await call('POST', '/keep-awake', '{"seconds":1}')).toEqual([
    422,
    { code: 'planned-422', message: 'Planned 422.' },
  ]);
});

test('more connections than it takes are closed', async () => {
  const sockets = Array.from({ length: 40 }, () => connect(tools.socket));
  const closed = new Set<unknown>();
  for (const socket of sockets)
    socket
      .on('error', () => {})
      .on('close', () => closed.add(socket))
      .resume();
  await until(() => closed.size >= 8, 'refused connections');
  for (const socket of sockets) socket.destroy();
  await until(() => closed.size === 40, 'closed connections');
  expect(await call('GET', '/activity')).toMatchObject([200, {}]);
});

test('`cde keep-awake` for a time', async () => {
  const { ended, output } = cde(['keep-awake', '--for', '2h30m', '--reason', 'a demo']);
  expect([await ended, server.leases]).toEqual([0, [{ seconds: 9000, reason: 'a demo' }]]);
  const id = /--end (\S+)/.exec(output())![1]!;
  expect(await cde(['keep-awake', '--end', id]).ended).toBe(0);
  expect(server.endedLeases).toEqual([id]);
});

test('`cde keep-awake -- command` holds a lease while the command runs, and passes on its input, output and exit code', async () => {
  const script = 'read line; echo "got $line"; exit 7';
  const { child, ended, output } = cde(['keep-awake', '--', 'sh', '-c', script]);
  await until(() => server.leases.length === 1, 'a lease');
  expect(server.leases[0]).toEqual({ seconds: 900, reason: `sh -c ${script}` });
  expect(server.endedLeases).toEqual([]);
  child.stdin.end('a line\n');
  expect(await ended).toBe(7);
  expect(output()).toBe('got a line\n');
  expect(server.endedLeases).toHaveLength(1);
});

test('SIGTERM reaches the command, and the lease ends', async () => {
  const { child, ended } = cde(['keep-awake', '--', 'sh', '-c', 'echo $$ > pid; exec sleep 600']);
  await until(() => {
    try {
      return readFileSync(join(folder, 'pid'), 'utf8');
    } catch {
      return null;
    }
  }, 'the command');
  child.kill('SIGTERM');
  expect(await ended).toBe(143);
  expect(server.endedLeases).toHaveLength(1);
});

test('without an agent the command still runs', async () => {
  const { ended, output } = cde(['keep-awake', '--', 'echo', 'done'], join(folder, 'nothing'));
  expect(await ended).toBe(0);
  expect(output()).toContain("The workspace's agent cannot be reached");
  expect(output()).toContain('done');
});

test.each([
  [['keep-awake', '--for', 'long'], '"long" is not a duration'],
  [['keep-awake', '--wat'], "Unknown option '--wat'"],
  [['list'], 'There is no "list" here'],
])('%j says what is wrong', async (args, text) => {
  const { ended, output } = cde(args);
  expect(await ended).toBe(1);
  expect(output()).toContain(text);
});
