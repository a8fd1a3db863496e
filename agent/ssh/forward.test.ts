import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { freePort } from '../../tests/kit/free-port.ts';
import { type Fixture, has, makeFixture, until } from './fixture.ts';

const md5 = (data: Buffer) => createHash('md5').update(data).digest('hex');

describe.skipIf(!has('ssh'))('forwarding over OpenSSH (needs ssh)', () => {
  let fixture: Fixture;
  let echo: Server;
  let port: number;
  const servers: Server[] = [];

  beforeAll(async () => {
    fixture = await makeFixture();
    echo = await serve({ port: 0, host: '127.0.0.1' });
    port = (echo.address() as AddressInfo).port;
  });
  afterAll(async () => {
    await fixture.close();
    for (const server of servers) server.close();
  });

  /** A server that answers only once its client has finished: it needs half-closed connections. */
  async function serve(where: { port: number; host: string } | { path: string }): Promise<Server> {
    const server = createServer({ allowHalfOpen: true }, async (socket) => {
      socket.on('error', () => {});
      const received = await collect(socket).catch(() => Buffer.alloc(0));
      socket.end(Buffer.concat([Buffer.from(`${received.length}:`), received]));
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(where, resolve));
    return server;
  }

  /** Sends data, finishes, and gives the whole answer. */
  async function ask(socket: Socket, data: Buffer): Promise<Buffer> {
    socket.end(data);
    return collect(socket);
  }

  async function collect(stream: Readable): Promise<Buffer> {
    const chunks: Buffer[] = [];
    for await (const chunk of stream as AsyncIterable<Buffer>) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  /** The next bytes, and no more. */
  async function take(socket: Socket, length: number): Promise<Buffer> {
    return until(() => socket.read(length) as Buffer | null, `${length} bytes`);
  }

  function dial(where: { port: number; host?: string } | { path: string }): Promise<Socket> {
    return new Promise((resolve, reject) => {
      const socket = connect({ ...where, allowHalfOpen: true });
      socket.once('error', reject);
      socket.once('connect', () => resolve(socket));
    });
  }

  /** A client that has its forwards up (`-N`), and what it said on stderr. */
  async function forwarding(args: string[], ready: () => Promise<unknown> | unknown) {
    const child = fixture.start([
      '-N',
      '-o',
      'ExitOnForwardFailure=yes',
      '-o',
      'LogLevel=INFO',
      ...args,
      'ws',
    ]);
    let said = '';
    child.stderr.on('data', (chunk: Buffer) => {
      said += chunk;
    });
    await until(async () => {
      if (child.exitCode !== null) throw new Error(`ssh ended: ${said}`);
      return (await ready()) ? true : undefined;
    }, `the forward is up: ${said}`);
    return {
      said: () => said,
      async close() {
        child.kill('SIGTERM');
        await once(child, 'close');
      },
    };
  }

  const canDial = (where: Parameters<typeof dial>[0]) => () =>
    dial(where).then(
      (socket) => {
        socket.destroy();
        return true;
      },
      () => false,
    );

  test('-L: a port, half-closed, 10 MB both ways, and a refused one', async () => {
    const [local, refused] = [await freePort(), await freePort()];
    const client = await forwarding(
      ['-L', `${local}:localhost:${port}`, '-L', `${refused}:127.0.0.1:1`],
      canDial({ port: local }),
    );
    const data = randomBytes(10_000_000);
    const answers = await Promise.all(
      [data, Buffer.from('small'), Buffer.alloc(0)].map(async (part) =>
        ask(await dial({ port: local }), part),
      ),
    );
    expect(answers.map((answer) => answer.length)).toEqual([10_000_009, 7, 2]);
    expect(md5(answers[0]!.subarray(9))).toBe(md5(data));
    expect(await ask(await dial({ port: refused }), Buffer.from('x')).catch(() => Buffer.alloc(0))).toEqual(
      Buffer.alloc(0),
    );
    await client.close();
    await until(() => fixture.sessions.list().length === 0, 'no session');
  });

  test('-L: an answer that the client reads late is complete, though its server has long gone', async () => {
    // More than an SSH window, less than all buffers on the way.
    const answer = randomBytes(3_500_000);
    let gone = false;
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.resume();
      socket.once('end', () => socket.end(answer));
      socket.once('close', () => {
        gone = true;
      });
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const local = await freePort();
    const to = (server.address() as AddressInfo).port;
    const client = await forwarding(['-L', `${local}:127.0.0.1:${to}`], canDial({ port: local }));
    gone = false;
    const socket = await dial({ port: local });
    socket.end('question');
    await until(() => gone, 'the server has sent all and closed');
    expect(md5(await collect(socket))).toBe(md5(answer));
    await client.close();
  });

  test('-W and a host name', async () => {
    const result = await fixture.ssh(['-W', `localhost:${port}`, 'ws'], 'through');
    expect(result.stdout.toString()).toBe('7:through');
    const failed = await fixture.ssh(['-W', 'no-such-host.invalid:80', 'ws'], '');
    expect(failed.code).not.toBe(0);
  });

  test('a program that listens on ::1 alone is at localhost and 127.0.0.1 too', async () => {
    const program = createServer((socket) => socket.end('from ::1'));
    await once(program.listen(0, '::1'), 'listening');
    const at = (program.address() as AddressInfo).port;
    for (const host of ['localhost', '127.0.0.1']) {
      const result = await fixture.ssh(['-W', `${host}:${at}`, 'ws'], '');
      expect(result.stdout.toString()).toBe('from ::1');
    }
    program.close();
  });

  test('-L and -R with Unix sockets, and one left over by a broken client', async () => {
    const inside = join(fixture.home, 'inside.sock');
    const outside = join(fixture.folder, 'outside.sock');
    const local = join(fixture.folder, 'local.sock');
    const remote = join(fixture.home, 'remote.sock');
    await Promise.all([serve({ path: inside }), serve({ path: outside })]);
    // A socket file that no process listens on.
    const stale = await fixture.run('node', [
      '-e',
      `require('net').createServer().listen(${JSON.stringify(remote)}, () => process.kill(process.pid, 'SIGKILL'))`,
    ]);
    expect([stale.code, existsSync(remote)]).toEqual([null, true]);
    const client = await forwarding(
      ['-L', `${local}:${inside}`, '-R', `${remote}:${outside}`],
      async () => (await canDial({ path: local })()) && (await canDial({ path: remote })()),
    );
    const data = randomBytes(1_000_000);
    const [one, two] = await Promise.all([
      dial({ path: local }).then((socket) => ask(socket, data)),
      dial({ path: remote }).then((socket) => ask(socket, data)),
    ]);
    expect(md5(one!.subarray(8))).toBe(md5(data));
    expect(md5(two!.subarray(8))).toBe(md5(data));
    await client.close();
    await until(() => !existsSync(remote), 'the socket is removed');
  });

  test('-R: a given port, port 0, a bind address, a taken port', async () => {
    const remote = await freePort();
    const client = await forwarding(
      [
        '-R',
        `${remote}:127.0.0.1:${port}`,
        '-R',
        `0:127.0.0.1:${port}`,
        '-R',
        `127.0.0.1:0:127.0.0.1:${port}`,
      ],
      canDial({ port: remote, host: '127.0.0.1' }),
    );
    await until(
      () => [...client.said().matchAll(/Allocated port (\d+)/g)].length === 2,
      'two ports allocated',
    );
    const allocated = [...client.said().matchAll(/Allocated port (\d+)/g)].map((match) => Number(match[1]));
    for (const each of [remote, ...allocated]) {
      const answer = await ask(await dial({ port: each, host: '127.0.0.1' }), Buffer.from('back'));
      expect(answer.toString()).toBe('4:back');
    }
    const taken = await fixture.ssh([
      '-N',
      '-o',
      'ExitOnForwardFailure=yes',
      '-R',
      `127.0.0.1:${port}:127.0.0.1:1`,
      'ws',
    ]);
    expect(taken.code).toBe(255);
    expect(taken.stderr).toMatch(/remote port forwarding failed/);
    await client.close();
    await until(
      async () => !(await canDial({ port: remote, host: '127.0.0.1' })()),
      'the port is free again',
    );
  });

  test('-R: a forward can be cancelled without ending the connection', async () => {
    const remote = await freePort();
    const control = join(fixture.folder, 'control');
    const client = await forwarding(
      ['-M', '-S', control, '-R', `${remote}:127.0.0.1:${port}`],
      canDial({ port: remote, host: '127.0.0.1' }),
    );
    const cancelled = await fixture.ssh([
      '-S',
      control,
      '-O',
      'cancel',
      '-R',
      `${remote}:127.0.0.1:${port}`,
      'ws',
    ]);
    expect(cancelled.code).toBe(0);
    await until(async () => !(await canDial({ port: remote, host: '127.0.0.1' })()), 'nobody listens');
    expect((await fixture.ssh(['-S', control, 'ws', 'echo shared'])).stdout.toString()).toBe('shared\n');
    await client.close();
  });

  test('-D beside a script on the stdin of bash, as VS Code does', async () => {
    const socks = await freePort();
    const child = fixture.start(['-T', '-D', String(socks), 'ws', 'bash']);
    child.stdout.resume();
    child.stdin.write('echo up\n');
    await until(canDial({ port: socks }), 'the proxy is up');
    const data = randomBytes(3_000_000);
    const answers = await Promise.all(
      [data, Buffer.from('one'), Buffer.from('two')].map(async (part) => {
        const socket = await dial({ port: socks });
        const host = Buffer.from('localhost');
        socket.write(Buffer.of(5, 1, 0));
        expect(await take(socket, 2)).toEqual(Buffer.of(5, 0));
        socket.write(
          Buffer.concat([Buffer.of(5, 1, 0, 3, host.length), host, Buffer.of(port >> 8, port & 255)]),
        );
        expect((await take(socket, 10))[1]).toBe(0);
        return ask(socket, part);
      }),
    );
    expect(answers.map((answer) => answer.length)).toEqual([3_000_008, 5, 5]);
    expect(md5(answers[0]!.subarray(8))).toBe(md5(data));
    child.stdin.end('exit 6\n');
    const [code] = await once(child, 'close');
    expect(code).toBe(6);
  });

  test.skipIf(!has('ssh-agent'))('-A: the keys of the client (needs ssh-agent)', async () => {
    const key = join(fixture.folder, 'id_ed25519');
    await fixture.run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'the developer', '-f', key]);
    const path = join(fixture.folder, 'agent.sock');
    const started = await fixture.run('ssh-agent', ['-a', path]);
    const pid = Number(/SSH_AGENT_PID=(\d+)/.exec(started.stdout.toString())?.[1]);
    try {
      const environment = { SSH_AUTH_SOCK: path };
      expect((await fixture.run('ssh-add', [key], { environment })).code).toBe(0);
      const listed = await fixture.ssh(
        [
          '-A',
          'ws',
          'ssh-add -l; stat -c %a "$SSH_AUTH_SOCK" "$(dirname "$SSH_AUTH_SOCK")"; echo "$SSH_AUTH_SOCK"',
        ],
        null,
        environment,
      );
      const lines = listed.stdout.toString().trim().split('\n');
      expect(lines[0]).toMatch(/256 SHA256:\S+ the developer \(ED25519\)/);
      expect(lines[2]).toBe('700');
      await until(() => !existsSync(lines[3]!), 'the socket is gone with the connection');
      const without = await fixture.ssh(['-a', 'ws', 'echo "[$SSH_AUTH_SOCK]"'], null, environment);
      expect(without.stdout.toString()).toBe('[]\n');
      // A key of the client signs inside the workspace.
      await writeFile(join(fixture.home, 'text'), 'to be signed');
      const signed = await fixture.ssh(
        ['-A', 'ws', `ssh-add -L > key.pub && ssh-keygen -Y sign -f key.pub -n test text && cat text.sig`],
        null,
        environment,
      );
      expect(signed.stdout.toString()).toContain('BEGIN SSH SIGNATURE');
    } finally {
      process.kill(pid, 'SIGTERM');
    }
  });
});
