import './protocol/packet-limit-hook.ts';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import ssh2 from 'ssh2';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { field } from '../sftp/packets.ts';
import { alive, type Fixture, has, makeFixture, until } from './fixture.ts';

let fixture: Fixture;
beforeAll(async () => {
  fixture = await makeFixture();
});
afterAll(() => fixture.close());

/** Runs `ssh` in a shell, where bytes can be written that are not UTF-8, and output can be cut. */
const shell = (script: string) =>
  fixture.run('bash', ['-c', script], { environment: { SSH: `ssh -F ${fixture.config}` } });

describe.skipIf(!has('ssh'))('a client that reads no more output (needs ssh)', () => {
  test('ends the command by SIGPIPE, as a pipe does', async () => {
    const { stdout } = await shell('$SSH ws yes | head -1; echo "$SSH ended"');
    expect(stdout.toString()).toMatch(/^y\n.* ended\n$/);
    await until(() => fixture.sessions.list().length === 0, 'no session is left');
  });

  test('ends a command that writes now and then, at its next line', async () => {
    const { stdout } = await shell(
      '$SSH ws "echo \\$\\$ > loop.pid; while :; do echo line; sleep 0.1; done" | grep -m1 line',
    );
    expect(stdout.toString()).toBe('line\n');
    const pid = Number(readFileSync(join(fixture.home, 'loop.pid'), 'utf8'));
    await until(() => !alive(pid), 'the command has ended');
  });

  test('still gets the exit code of a command that keeps running', async () => {
    const { stdout, stderr } = await shell(
      '{ $SSH ws "trap : PIPE; yes 2>/dev/null; exit 3"; echo "code $?" >&2; } | head -1',
    );
    expect([stdout.toString(), stderr]).toEqual(['y\n', 'code 3\n']);
  });

  test('ends a command in a terminal too', async () => {
    const { stdout } = await shell('$SSH -tt ws yes </dev/null | head -1; echo ended');
    expect(stdout.toString()).toMatch(/^y\r?\nended\n$/);
  });
});

describe.skipIf(!has('ssh'))('long requests over OpenSSH (needs ssh)', () => {
  const letters = (count: number) => 'a'.repeat(count);

  test.each([34_900, 35_100, 120_000])('a command of %i bytes runs', async (length) => {
    const { stdout, stderr } = await fixture.ssh(['ws', `echo ${letters(length)} | wc -c`]);
    expect([stdout.toString().trim(), stderr]).toEqual([String(length + 1), '']);
  });

  test('a variable of 100,000 bytes is set', async () => {
    const setting = `SetEnv=LONG=${letters(100_000)}`;
    const { stdout } = await fixture.ssh(['-o', setting, 'ws', 'printf %s "$LONG" | wc -c']);
    expect(stdout.toString()).toMatch(/^\s*100000\n$/);
  });

  test('what is too long for the system is refused alone; the other channels go on', async () => {
    const control = join(fixture.folder, 'long-control');
    const master = fixture.start(['-M', '-N', '-S', control, 'ws']);
    await until(() => existsSync(control), 'the master is up');
    const other = fixture.start(['-S', control, 'ws', 'cat']);
    other.stdin.write('before\n');
    await once(other.stdout, 'data');
    // One argument is at most 128 KiB on Linux; OpenSSH joins several into one command.
    const refused = await fixture.ssh(['-S', control, 'ws', 'echo', letters(80_000), letters(80_000)]);
    expect(refused.code).toBe(126);
    expect(refused.stderr).toContain('the command is too long for this system');
    other.stdin.end('after\n');
    const [last] = (await once(other.stdout, 'data')) as [Buffer];
    expect(last.toString()).toBe('after\n');
    expect(await once(other, 'close')).toEqual([0, null]);
    master.kill('SIGTERM');
    await once(master, 'close');
  });
});

describe('odd requests of other clients', () => {
  interface Protocol {
    _packetRW: {
      write: { allocStart: number; alloc(size: number): Buffer; finalize(packet: Buffer): Buffer };
    };
    _cipher: { encrypt(packet: Buffer): void };
  }
  let connection: ssh2.Client;
  beforeAll(async () => {
    connection = new ssh2.Client();
    connection.connect({ sock: connect(fixture.socket), username: 'dev' });
    await once(connection, 'ready');
  });
  afterAll(() => connection.end());

  /** Sends a message that ssh2 itself would not send. */
  function send(...fields: Buffer[]) {
    const { _packetRW: packets, _cipher: cipher } = (connection as unknown as { _protocol: Protocol })
      ._protocol;
    const payload = Buffer.concat(fields);
    const packet = packets.write.alloc(payload.length);
    payload.copy(packet, packets.write.allocStart);
    cipher.encrypt(packets.write.finalize(packet));
  }

  /** Starts a command; `output` is all of its output, once its channel is closed. */
  function exec(
    command: string,
    options: ssh2.ExecOptions = {},
  ): Promise<{ channel: ssh2.ClientChannel; id: number; output: Promise<string> }> {
    return new Promise((resolve, reject) => {
      connection.exec(command, options, (error, channel) => {
        if (error) return reject(error);
        let text = '';
        channel.on('data', (chunk: Buffer) => {
          text += chunk;
        });
        const output = once(channel, 'close').then(() => text);
        const { id } = (channel as unknown as { outgoing: { id: number } }).outgoing;
        resolve({ channel, id, output });
      });
    });
  }

  const globalRequest = Buffer.of(80);
  const channelOpen = Buffer.of(90);
  const channelRequest = Buffer.of(98);
  const no = Buffer.of(0);
  const request = (id: number, type: string, ...fields: Buffer[]) =>
    send(channelRequest, field.uint32(id), field.bytes(type), no, ...fields);

  test('malformed or oversized ones are refused alone', async () => {
    const { channel, id, output } = await exec('cat');
    const beyond = field.uint32(100_000);

    // Names and values that are cut short, longer than they may be, or nothing at all.
    for (const type of ['env', 'pty-req', 'window-change', 'signal', 'x11-req', 'exec', 'subsystem', 'shell'])
      for (const rest of [[], [beyond], [field.bytes('x'), beyond]]) request(id, type, ...rest);
    request(id, 'env', field.bytes('A'.repeat(100_000)), field.bytes('x'));
    request(id, 'env', field.bytes('ZERO'), field.bytes('a\0b'));
    request(id, 'pty-req', field.bytes('x\0y'), ...[0, 0, 0, 0].map(field.uint32), field.bytes(''));
    request(id, 'window-change', ...[0xffffffff, 0xffffffff, 0, 0].map(field.uint32));
    request(id, 'subsystem', field.bytes('no-such-subsystem'));
    request(id, 'signal', field.bytes('NO-SUCH-SIGNAL'));
    request(id, 'x'.repeat(100_000));
    request(12345, 'exec', field.bytes('true'));
    send(channelRequest);

    send(globalRequest);
    for (const name of ['tcpip-forward', 'cancel-tcpip-forward', 'streamlocal-forward@openssh.com']) {
      send(globalRequest, field.bytes(name), no);
      send(globalRequest, field.bytes(name), no, field.bytes('a\0b'), field.uint32(70_000));
      send(globalRequest, field.bytes(name), no, beyond);
    }
    send(globalRequest, field.bytes('tcpip-forward'), no, field.bytes('127.0.0.1'), field.uint32(70_000));

    const window = [field.uint32(1 << 20), field.uint32(1 << 15)];
    send(channelOpen);
    for (const type of ['direct-tcpip', 'direct-streamlocal@openssh.com', 'session', 'no-such-type']) {
      send(channelOpen, field.bytes(type), field.uint32(900), field.uint32(1 << 20), field.uint32(0));
      send(channelOpen, field.bytes(type), field.uint32(901), ...window, beyond);
      send(channelOpen, field.bytes(type), field.uint32(902), ...window, field.bytes('a\0b'));
    }
    const target = [field.bytes('127.0.0.1'), field.uint32(70_000), field.bytes(''), field.uint32(0)];
    send(channelOpen, field.bytes('direct-tcpip'), field.uint32(903), ...window, ...target);

    channel.end('still here\n');
    expect(await output).toBe('still here\n');
    expect(await (await exec('echo another')).output).toBe('another\n');
  });

  test('terminal modes of any value are read or ignored', async () => {
    const modes = Buffer.concat([
      // A high first byte, unknown opcodes, a value beyond a character, no end.
      Buffer.of(53, 1, 0, 0, 0),
      Buffer.of(99, 255, 255, 255, 255),
      Buffer.of(3, 0, 1, 0, 0),
      Buffer.of(1, 0),
    ]);
    const { id, output } = await exec('echo over; sleep 0.2; stty size', {
      pty: { term: 'vt100', cols: 200_000, rows: 0 } as ssh2.PseudoTtyOptions,
    });
    request(id, 'pty-req', field.bytes('vt100'), ...[80, 24, 0, 0].map(field.uint32), field.bytes(modes));
    expect(await output).toMatch(/^over\r\n\d+ \d+\r\n$/);
  });

  test('a second command in one session is refused, and signals are answered', async () => {
    const { channel, id, output } = await exec('cat');
    const yes = Buffer.of(1);
    const answers: boolean[] = [];
    const waiting = (channel as unknown as { _callbacks: ((failed: boolean) => void)[] })._callbacks;
    for (const [type, ...fields] of [
      ['exec', field.bytes('echo second')],
      ['subsystem', field.bytes('sftp')],
      ['shell'],
      ['signal', field.bytes('CONT')],
      ['keepalive@openssh.com'],
    ] as [string, ...Buffer[]][]) {
      waiting.push((failed) => answers.push(!failed));
      send(channelRequest, field.uint32(id), field.bytes(type), yes, ...fields);
    }
    await until(() => answers.length === 5, 'five answers');
    expect(answers).toEqual([false, false, false, true, false]);
    channel.end('first\n');
    expect(await output).toBe('first\n');
  });

  test('a message longer than any command is refused alone', async () => {
    const long = 'a'.repeat(4 * 1024 * 1024);
    const result = await new Promise((resolve, reject) => {
      connection.exec(`echo ${long}`, (error, channel) => {
        if (error) return reject(error);
        let told = '';
        channel.stderr.on('data', (chunk: Buffer) => {
          told += chunk;
        });
        channel.resume();
        channel.once('exit', (code) => channel.once('close', () => resolve({ code, told })));
      });
    });
    expect(result).toEqual({ code: 126, told: expect.stringContaining('too long') });
    expect(await (await exec('echo fine')).output).toBe('fine\n');
  });
});

describe.skipIf(!has('ssh') || !has('bash'))('bytes that are not UTF-8 (needs ssh, bash)', () => {
  test('reach a command and its variables as they are', async () => {
    const command = `$'printf "%s|" "\\xe9\\n\\\\x" "$RAW" | od -An -tx1; printf "%s" "it\\'s \\xff%d" | od -An -tx1'`;
    const { stdout } = await shell(`$SSH -o SetEnv=RAW=$'a\\xe9b' ws ${command}`);
    expect(stdout.toString().replace(/\s+/g, ' ').trim()).toBe(
      'e9 0a 5c 78 7c 61 e9 62 7c 69 74 27 73 20 ff 25 64',
    );
  });

  test('reach a command in a terminal, and one of 40,000 bytes', async () => {
    const inTerminal = await shell(`$SSH -tt ws $'printf "\\xe9" | od -An -tx1' </dev/null`);
    expect(inTerminal.stdout.toString().trim()).toBe('e9');
    const { stdout } = await shell(
      `$SSH ws $'printf "\\xe9%s" '"$(head -c 40000 /dev/zero | tr '\\0' a)"' | wc -c'`,
    );
    expect(stdout.toString().trim()).toBe('40001');
  });

  test.skipIf(!has('scp'))('name files of scp, in its old protocol and in the new (needs scp)', async () => {
    await shell(`$SSH ws $'printf one > z\\xe9'`);
    const copied = await shell(
      `scp -O -F ${fixture.config} ws:$'z\\xe9' $'${fixture.folder}/old-\\xe9' && ` +
        `scp -F ${fixture.config} ws:$'z\\xe9' $'${fixture.folder}/new-\\xe9' && ` +
        `cat $'${fixture.folder}/old-\\xe9' $'${fixture.folder}/new-\\xe9'`,
    );
    expect([copied.stdout.toString(), copied.stderr]).toEqual(['oneone', '']);
  });

  test.skipIf(!has('rsync'))('name files of rsync (needs rsync)', async () => {
    await shell(`$SSH ws $'printf two > y\\xe9'`);
    const copied = await shell(
      `rsync -e "$SSH" ws:$'y\\xe9' ${fixture.folder}/ && cat $'${fixture.folder}/y\\xe9'`,
    );
    expect([copied.stdout.toString(), copied.stderr]).toEqual(['two', '']);
  });
});
