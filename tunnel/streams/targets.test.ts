import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TunnelError } from '../errors.ts';
import { connectTarget, formatTarget, parseTarget, type Target } from './targets.ts';

const code = (expected: string) => expect.objectContaining({ code: expected });

describe('targets', () => {
  it('survive formatting and parsing', () => {
    const target = fc.oneof(
      fc.constantFrom<Target>({ kind: 'ssh' }, { kind: 'files' }),
      fc
        .tuple(
          fc.constantFrom('tcp' as const, 'udp' as const),
          fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6()),
          fc.integer({ min: 1, max: 65535 }),
        )
        .map(([kind, host, port]): Target => ({ kind, host, port })),
      fc
        .string({ unit: 'grapheme', maxLength: 40 })
        .filter((text) => !text.includes('\0'))
        .map((text): Target => ({ kind: 'unix', path: `/${text}` })),
    );
    fc.assert(
      fc.property(target, (one) => {
        expect(parseTarget(formatTarget(one))).toEqual(one);
      }),
    );
  });

  it('are targets or target-invalid, whatever the text', () => {
    const text = fc.oneof(
      fc.string(),
      fc.tuple(fc.constantFrom('ssh', 'tcp:', 'udp:', 'unix:'), fc.string()).map((parts) => parts.join('')),
    );
    fc.assert(
      fc.property(text, (any) => {
        try {
          parseTarget(any);
        } catch (error) {
          expect(error).toBeInstanceOf(TunnelError);
          expect(error).toEqual(code('target-invalid'));
        }
      }),
    );
    for (const bad of [
      'tcp:localhost:0',
      'tcp:localhost:65536',
      'tcp:a b:1',
      'tcp:-x:1',
      'unix:relative',
      'unix:%2Fa%00',
      'unix:%',
    ]) {
      expect(() => parseTarget(bad), bad).toThrow(code('target-invalid'));
    }
  });

  it('connect, or report why not', async () => {
    const directory = await mkdtemp(joinPath(tmpdir(), 'cde-targets-'));
    const server = createServer((socket) => socket.end('hello'));
    server.listen(joinPath(directory, 'socket'));
    await once(server, 'listening');
    const stream = await connectTarget({ kind: 'unix', path: joinPath(directory, 'socket') });
    expect(String((await once(stream, 'data'))[0])).toBe('hello');
    stream.destroy();
    await expect(connectTarget({ kind: 'unix', path: joinPath(directory, 'none') })).rejects.toEqual(
      code('target-not-found'),
    );
    server.close();
    await once(server, 'close');
    await rm(directory, { recursive: true });

    const gone = createServer().listen(0, '127.0.0.1');
    await once(gone, 'listening');
    const { port } = gone.address() as AddressInfo;
    gone.close();
    await once(gone, 'close');
    await expect(connectTarget({ kind: 'tcp', host: '127.0.0.1', port })).rejects.toEqual(
      code('target-refused'),
    );
  });
});
