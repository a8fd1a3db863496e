import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { FaultyConnection } from '@cde/server/providers/conformance/walk-world.ts';

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

/** The first bytes of a call. Clients keep connections open, so that one carries many calls. */
const call = /^(GET|HEAD|POST|PUT|PATCH|DELETE) /;

/** A socket in front of an engine's, which can be cut, slow, or answer with errors. */
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

  /** False if the call is not to be passed on. */
  async function admit(socket: Socket): Promise<boolean> {
    calls++;
    if (callsLeft-- <= 0) isDead = true;
    if (isDead) cutAll();
    else if (mode === 'cut') socket.destroy();
    else if (mode === 'error') socket.end(errorReply);
    else {
      if (mode === 'slow') await delay(slowMs);
      return true;
    }
    return false;
  }

  const server = createServer({ allowHalfOpen: true }, async (socket) => {
    const engine = connect({ path: target, allowHalfOpen: true });
    for (const [one, other] of [
      [socket, engine],
      [engine, socket],
    ] as const) {
      open.add(one);
      one.on('error', () => {});
      one.once('close', () => {
        open.delete(one);
        other.destroy();
      });
    }
    engine.pipe(socket);
    try {
      for await (const chunk of socket) {
        if (call.test(chunk.toString('latin1', 0, 8)) && !(await admit(socket))) return;
        if (!engine.write(chunk)) await once(engine, 'drain');
      }
      engine.end();
    } catch {
      // One of them was cut.
      engine.destroy();
    }
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
