import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import ssh2 from 'ssh2';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeReader } from '../sftp/packets.ts';
import { type Fixture, has, makeFixture } from './fixture.ts';

/** The lists of a server's KEXINIT (RFC 4253, 7.1), read from the wire. */
async function readOffer(socketPath: string): Promise<{ banner: string; lists: string[][] }> {
  const socket = connect(socketPath);
  socket.write('SSH-2.0-test\r\n');
  let received = Buffer.alloc(0);
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    received = Buffer.concat([received, chunk]);
    const start = received.indexOf('\r\n') + 2;
    if (start < 2 || received.length < start + 4) continue;
    if (received.length < start + 4 + received.readUInt32BE(start)) continue;
    const cookie = 16;
    const reader = makeReader(received, start + 5 + 1 + cookie);
    const lists = Array.from({ length: 8 }, () => reader.text().split(','));
    return { banner: received.toString('latin1', 0, start - 2), lists };
  }
  throw new Error('the server closed the connection');
}

/** Names that announce an extension instead of an algorithm. */
const isMarker = (name: string) => /^(kex-strict-|ext-info-)/.test(name);

describe('algorithms', () => {
  let fixture: Fixture;
  let offered: [kind: string, option: string, query: string, names: string[]][];
  beforeAll(async () => {
    fixture = await makeFixture();
    const { lists } = await readOffer(fixture.socket);
    const [kex, hostKey, cipher, , mac, , compression] = lists as string[][];
    offered = [
      ['kex', 'KexAlgorithms', 'kex', kex!.filter((name) => !isMarker(name))],
      ['serverHostKey', 'HostKeyAlgorithms', 'HostKeyAlgorithms', hostKey!],
      ['cipher', 'Ciphers', 'cipher', cipher!],
      ['hmac', 'MACs', 'mac', mac!],
      ['compress', 'Compression', '', compression!],
    ];
  });
  afterAll(() => fixture.close());

  test('the banner is one that clients treat as OpenSSH without faults', async () => {
    const { banner } = await readOffer(fixture.socket);
    expect(banner).toBe('SSH-2.0-OpenSSH_9.9 cde');
  });

  test('all that is offered is negotiated by node ssh2', async () => {
    const failed: string[] = [];
    for (const [kind, , , names] of offered) {
      expect(names).not.toEqual([]);
      for (const name of names) {
        const connection = new ssh2.Client();
        const algorithms: Record<string, string[]> = { [kind]: [name] };
        if (kind === 'hmac') algorithms.cipher = ['aes128-ctr'];
        connection.connect({ sock: connect(fixture.socket), username: 'dev', algorithms });
        try {
          await once(connection, 'ready');
          const output = await new Promise<string>((resolve, reject) => {
            connection.exec('echo hello', (error, channel) => {
              if (error) return reject(error);
              let text = '';
              channel.on('data', (chunk: Buffer) => {
                text += chunk;
              });
              channel.once('close', () => resolve(text));
            });
          });
          expect(output).toBe('hello\n');
        } catch (error) {
          failed.push(`${name}: ${error}`);
        }
        connection.end();
      }
    }
    expect(failed).toEqual([]);
  });

  test.skipIf(!has('ssh'))('all that OpenSSH knows of it is negotiated by OpenSSH (needs ssh)', async () => {
    const failed: string[] = [];
    for (const [kind, option, query, names] of offered) {
      const known = query && execFileSync('ssh', ['-Q', query]).toString().split('\n');
      for (const name of names) {
        if (known && !known.includes(name)) continue;
        const value = kind === 'compress' ? (name === 'none' ? 'no' : 'yes') : name;
        const result = await fixture.ssh([
          '-o',
          `${option}=${value}`,
          ...(kind === 'hmac' ? ['-o', 'Ciphers=aes128-ctr'] : []),
          'ws',
          'echo hello',
        ]);
        if (result.stdout.toString() !== 'hello\n') failed.push(`${name}: ${result.stderr}`);
      }
    }
    expect(failed).toEqual([]);
  });
});
