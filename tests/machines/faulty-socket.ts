import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FaultyConnection } from '@cde/server/providers/conformance/walk.ts';

const slowMs = 150;
const refusal = JSON.stringify({ message: 'injected by the test' });
const errorReply = [
  'HTTP/1.1 500 Internal Server Error',
  'Content-Type: application/json',
  `Content-Length: ${refusal.length}`,
  'Connection: close',
  '',
  refusal,
].join('\r\n');

/** A socket in front of an engine's, which can be cut, slow, or answer with errors. Each call has a connection of its own. */
export async function faultySocket(
  target: string,
): Promise<FaultyConnection & { url: string; calls(): number }> {
  const folder = await mkdtemp(join(tmpdir(), 'cde-faulty-'));
  const path = join(folder, 'socket');
  const open = new Set<Socket>();
  let mode: Parameters<FaultyConnection['set']>[0] = 'open';
  let callsLeft = Number.POSITIVE_INFINITY;
  let isDead = false;
  let calls = 0;

  function cutAll() {
    for (const socket of open) socket.destroy();
  }

  function forward(from: Socket) {
    const to = connect(target);
    open.add(to);
    for (const [socket, peer] of [
      [from, to],
      [to, from],
    ] as const) {
      socket.on('error', () => peer.destroy());
      socket.once('close', () => {
        open.delete(socket);
        peer.destroy();
      });
    }
    from.pipe(to);
    to.pipe(from);
  }

  const server = createServer({ allowHalfOpen: true }, (socket) => {
    calls++;
    open.add(socket);
    socket.on('error', () => {});
    socket.once('close', () => open.delete(socket));
    if (callsLeft-- <= 0) isDead = true;
    if (isDead) cutAll();
    else if (mode === 'cut') socket.destroy();
    else if (mode === 'error') socket.once('data', () => socket.end(errorReply));
    else if (mode === 'slow') setTimeout(() => forward(socket), slowMs);
    else forward(socket);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return {
    url: `unix://${path}`,
    set(next) {
      mode = next;
      if (next === 'cut') cutAll();
    },
    dieAfter(calls) {
      callsLeft = calls;
    },
    calls: () => calls,
    get isDead() {
      return isDead;
    },
    async close() {
      cutAll();
      await new Promise((resolve) => server.close(resolve));
      await rm(folder, { recursive: true, force: true });
    },
  };
}
