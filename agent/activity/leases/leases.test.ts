import { spawn } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer, request, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createAgentLease } from '@cde/api/activity.ts';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { until } from '../../../tests/kit/until.ts';
import { makeServerClient } from '../../server/client.ts';
import { alive } from '../../ssh/fixture.ts';
import { makeTestServer, type TestServer, token } from '../../testing.ts';
import { makeActivity } from '../activity.ts';
import { serveTools, type ToolSocket } from './socket.ts';

let server: TestServer;
let tools: ToolSocket;
/** Of the programs, and the home. */
let folder: string;
let printed: string[];
let idle: () => unknown;
const activity = makeActivity();
const serve = (url = server.url, searchPath = '/usr/bin:/bin') =>
  serveTools({
    workspaceId: `leases-test-${process.pid}`,
    home: folder,
    searchPath,
    client: makeServerClient({ urls: url, token }),
    activity,
    idle: () => idle(),
    print: (text) => printed.push(text),
  });
beforeEach(async () => {
  server = await makeTestServer();
  folder = mkdtempSync(join(tmpdir(), 'cde-leases-'));
  printed = [];
  idle = () => ({ stopsInMs: 1000 });
  tools = await serve();
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
function cde(args: string[], socket = tools.socket, environment: Record<string, string> = {}) {
  const child = spawn(join(tools.folder, 'cde'), args, {
    cwd: folder,
    env: { PATH: process.env.PATH, CDE_AGENT_SOCKET: socket, ...environment },
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

/** Of a command that writes its process id into the file `pid`. */
const commandPid = () =>
  until(() => {
    try {
      return Number(readFileSync(join(folder, 'pid'), 'utf8'));
    } catch {
      return null;
    }
  }, 'the command');

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

const example = 'Send {"seconds": 10800, "reason": "training"}.';
test.each([
  ['POST', '/keep-awake', 'nonsense', 400, 'bad-request', 'The body is not JSON.', example],
  ['POST', '/keep-awake', '7', 400, 'bad-request', 'The body must be an object.', example],
  ['POST', '/keep-awake', '{"seconds":0}', 400, 'bad-request', 'seconds must be at least 1.', example],
  [
    'POST',
    '/keep-awake',
    'x'.repeat(10_000),
    413,
    'payload-too-large',
    'The body is longer than 8192 bytes.',
    example,
  ],
  [
    'DELETE',
    '/keep-awake/..%2f..%2f',
    undefined,
    404,
    'route-not-found',
    'There is no DELETE /keep-awake/..%2f..%2f.',
    'There are POST /keep-awake, DELETE /keep-awake/ID and GET /activity.',
  ],
] as const)('%s %s %.20s is refused: %i %s', async (method, path, body, status, code, message, hint) => {
  expect(await call(method, path, body)).toEqual([status, { code, message, hint }]);
  expect(printed).toEqual([]);
});

test('a refusal of the server is passed on, an unreachable one is told apart from a fault of the agent', async () => {
  server.answer(createAgentLease.path, 422);
  expect(await call('POST', '/keep-awake', '{"seconds":1}')).toEqual([
    422,
    { code: 'planned-422', message: 'Planned 422.', hint: expect.any(String) },
  ]);
  idle = () => {
    throw new Error('a bug');
  };
  expect(await call('GET', '/activity')).toEqual([
    500,
    { code: 'internal', message: expect.stringContaining('in the agent'), hint: expect.any(String) },
  ]);
  expect(printed).toEqual([expect.stringContaining('a bug')]);
  await tools.close();
  tools = await serve('http://127.0.0.1:1');
  expect(await call('POST', '/keep-awake', '{"seconds":1}')).toEqual([
    503,
    {
      code: 'server-unreachable',
      message: 'The server cannot be reached.',
      hint: 'Try again in a minute.',
    },
  ]);
});

describe('`cde` in a login shell whose profile sets PATH, as that of Debian does', () => {
  /** Runs what the warning says. */
  const keepAwake = () => {
    writeFileSync(join(folder, '.bash_profile'), 'PATH=/usr/local/bin:/usr/bin:/bin\n');
    const child = spawn('bash', ['-l', '-c', `${tools.command} keep-awake --for 1h`], {
      env: {
        HOME: folder,
        PATH: `${process.env.PATH}:${tools.folder}`,
        CDE_AGENT_SOCKET: tools.socket,
      },
      stdio: 'ignore',
    });
    return new Promise((resolve) => child.once('close', resolve));
  };
  const link = () => join(folder, '.local/bin/cde');

  test('is a link in the home, and goes with the agent', async () => {
    expect(tools.command).toBe('~/.local/bin/cde');
    expect([await keepAwake(), server.leases.length]).toEqual([0, 1]);
    await tools.close();
    expect(existsSync(dirname(link()))).toBe(true);
    expect(() => lstatSync(link())).toThrow('ENOENT');
  });

  test('is not linked where that would hide a complete CLI', async () => {
    const bin = join(folder, 'bin');
    mkdirSync(bin);
    writeFileSync(join(bin, 'cde'), '');
    tools = await serve(server.url, `/usr/bin:${bin}`);
    expect(() => lstatSync(link())).toThrow('ENOENT');
    expect(tools.command).toBe(join(tools.folder, 'cde'));
    expect([await keepAwake(), server.leases.length]).toEqual([0, 1]);
  });

  test('replaces the link of an agent that was killed', async () => {
    rmSync(link());
    symlinkSync(join(tmpdir(), 'cde-agent-gone/bin/cde'), link());
    tools = await serve();
    expect(readlinkSync(link())).toBe(join(tools.folder, 'cde'));
    expect([await keepAwake(), server.leases.length]).toEqual([0, 1]);
  });

  test.each([
    ['a file', (path: string) => writeFileSync(path, '#!/bin/sh\nexit 9\n', { mode: 0o755 })],
    ['a link', (path: string) => symlinkSync('/opt/cde/bin/cde', path)],
    ['a folder', (path: string) => mkdirSync(path)],
  ])('leaves %s of that name alone, and names the absolute path', async (_, make) => {
    rmSync(link());
    make(link());
    const before = lstatSync(link());
    await tools.close();
    tools = await serve();
    expect(tools.command).toBe(join(tools.folder, 'cde'));
    expect([await keepAwake(), server.leases.length]).toEqual([0, 1]);
    await tools.close();
    expect(lstatSync(link()).ino).toBe(before.ino);
  });
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
  expect(server.leases[0]).toEqual({ seconds: 1800, reason: `sh -c ${script}` });
  expect(server.endedLeases).toEqual([]);
  child.stdin.end('a line\n');
  expect(await ended).toBe(7);
  expect(output()).toBe('got a line\n');
  expect(server.endedLeases).toHaveLength(1);
});

test('SIGTERM reaches the command, and the lease ends', async () => {
  const { child, ended } = cde(['keep-awake', '--', 'sh', '-c', 'echo $$ > pid; exec sleep 600']);
  await commandPid();
  child.kill('SIGTERM');
  expect(await ended).toBe(143);
  expect(server.endedLeases).toHaveLength(1);
});

test('a lease that is being renewed when the command ends, ends too', async () => {
  const socket = join(folder, 'fake.sock');
  const ended: string[] = [];
  const leases: ServerResponse[] = [];
  // So short that the first renewal follows within a second.
  const granted = { createdAt: '2026-01-01T00:00:00Z', expiresAt: '2026-01-01T00:00:01Z' };
  const grant = (at: number) =>
    leases[at]!.writeHead(201).end(JSON.stringify({ id: `lease-${at}`, ...granted }));
  const fake = createServer((asked, response) => {
    asked.resume();
    if (asked.method === 'POST') {
      leases.push(response);
      if (leases.length === 1) grant(0);
      return;
    }
    ended.push(asked.url!);
    response.writeHead(204).end();
  });
  await new Promise<void>((resolve) => fake.listen(socket, resolve));
  const { child, ended: exited } = cde(['keep-awake', '--', 'sh', '-c', 'echo $$ > pid; read line'], socket);
  await until(() => leases.length === 2, 'the renewal');
  const pid = await commandPid();
  child.stdin.end();
  await until(() => !alive(pid), 'the end of the command');
  grant(1);
  await exited;
  expect(ended).toEqual(['/keep-awake/lease-0', '/keep-awake/lease-1']);
  fake.closeAllConnections();
  await new Promise((resolve) => fake.close(resolve));
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
