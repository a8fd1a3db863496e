import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { cloneDatabase } from './kit/database.ts';
import { type Machine, makeMachine, type Running } from './kit/machine.ts';
import { until } from './kit/until.ts';

/** `cde port-forward` beyond plain TCP, by the real programs. */
let machine: Machine;
beforeAll(async () => {
  machine = await makeMachine({ DATABASE_URL: await cloneDatabase() });
  await mkdir(machine.env.HOME!, { recursive: true });
  await machine.start();
});
afterAll(() => machine?.remove());

async function forward(...args: string[]): Promise<{ running: Running; lines: Record<string, number>[] }> {
  const running = machine.begin(['port-forward', 'hello', '--json', ...args]);
  onTestFinished(async () => {
    running.process.kill('SIGINT');
    await running.ended;
  });
  const wanted = args.filter((word) => /^\d/.test(word)).length;
  const read = async () =>
    running
      .output()
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line));
  const lines = await until(read, ({ length }) => length >= wanted || running.process.exitCode !== null);
  return { running, lines };
}

/** A program in the workspace: whatever comes goes back, with its length before it and the sender's port behind it. */
async function udpEcho(): Promise<number> {
  const program = `const socket = require('dgram').createSocket('udp4');
    socket.on('message', (data, { port, address }) =>
      socket.send(data.length + ' ' + data + ' ' + port, port, address));
    socket.bind(0, '127.0.0.1', () => console.log('port ' + socket.address().port));`;
  const running = machine.begin([
    'ssh',
    'hello',
    '--',
    process.execPath,
    '-e',
    `'${program.replaceAll("'", '"')}'`,
  ]);
  onTestFinished(() => void running.process.kill());
  await running.says(/port \d+/);
  return Number(/port (\d+)/.exec(running.output())![1]);
}

async function udpClient() {
  const socket = createSocket('udp4');
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  onTestFinished(() => void socket.close());
  return async (port: number, text: string): Promise<{ answer: string; sender: string }> => {
    // As every program that uses UDP: asks again when no answer comes.
    const again = setInterval(() => socket.send(text, port, '127.0.0.1'), 1_000);
    socket.send(text, port, '127.0.0.1');
    try {
      for (;;) {
        const [data] = await once(socket, 'message');
        // Not the answer to an earlier question that was asked twice.
        const [, answer, sender] = /^(\d+ .*) (\d+)$/s.exec(String(data))!;
        if (answer!.endsWith(` ${text}`)) return { answer: answer!, sender: sender! };
      }
    } finally {
      clearInterval(again);
    }
  };
}

test('Ctrl-C is how it ends: no error, exit code 0', async () => {
  const { running } = await forward('0:9');
  running.process.kill('SIGINT');
  expect((await running.ended).code).toBe(0);
  expect(running.output()).not.toContain('error');
});

test('datagrams of several senders, each with its answers, ranges and free ports', async () => {
  const echo = await udpEcho();
  const { lines } = await forward(`0:${echo}/udp`);
  expect(lines).toMatchObject([{ protocol: 'udp', remotePort: echo, port: expect.any(Number) }]);
  const clients = await Promise.all([udpClient(), udpClient(), udpClient()]);
  const answers = await Promise.all(clients.map((ask, at) => ask(lines[0]!.port!, `from ${at}`)));
  expect(answers.map(({ answer }) => answer)).toEqual(['6 from 0', '6 from 1', '6 from 2']);
  expect(new Set(answers.map(({ sender }) => sender)).size).toBe(3);
  const long = await clients[0]!(lines[0]!.port!, 'x'.repeat(9000));
  expect(long.answer).toBe(`9000 ${'x'.repeat(9000)}`);
});

/** What a program in the workspace hears from a port there. */
const ask = (port: number, address = '127.0.0.1') =>
  machine.cde('ssh', 'hello', '--', `exec 3<>/dev/tcp/${address}/${port} && echo question >&3 && cat <&3`);

test(
  '-R: a port of the workspace, on its loopback alone, leads here; both half-closes pass',
  { timeout: 90_000 },
  async () => {
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => {});
      socket.once('data', (data) => socket.end(`here: ${data}`));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const local = (server.address() as AddressInfo).port;
    const { running, lines } = await forward('-R', `0:${local}`);
    const { remotePort } = lines[0]!;
    expect(lines).toMatchObject([{ reverse: true, port: local, remotePort: expect.any(Number) }]);
    expect(await ask(remotePort!)).toMatchObject({ stdout: 'here: question\n' });
    // On no other address of the machine.
    expect(await ask(remotePort!, '127.0.0.2')).toMatchObject({ stderr: expect.stringMatching(/refused/) });
    // A second one wants the same port.
    const second = await machine.cde('port-forward', 'hello', '-R', `${remotePort}:${local}`);
    expect(second).toMatchObject({ code: 5, stderr: expect.stringContaining('[port-unavailable]') });
    // The agent restarts: the port comes back, the same one.
    await machine.cde('ssh', 'hello', '--', 'kill -9 $PPID; exec sleep 30');
    const back = await until(
      () => ask(remotePort!),
      ({ stdout }) => stdout !== '',
      60_000,
    );
    expect(back.stdout).toBe('here: question\n');
    // The listener here has ended, so the program there sees its connection end.
    server.close();
    expect(await ask(remotePort!)).toMatchObject({ stdout: '' });
    expect(running.process.exitCode).toBeNull();
  },
);

test('what cannot be', async () => {
  expect(await machine.cde('port-forward', 'hello')).toMatchObject({ code: 2 });
  expect(await machine.cde('port-forward', 'hello', '-R', '53/udp')).toMatchObject({ code: 2 });
  const socket = createSocket('udp4').bind(0, '127.0.0.1');
  await once(socket, 'listening');
  onTestFinished(() => void socket.close());
  const { port } = socket.address();
  const taken = await machine.cde('port-forward', 'hello', `${port}:53/udp`);
  expect(taken).toMatchObject({ code: 5, stderr: expect.stringContaining('in use') });
});
