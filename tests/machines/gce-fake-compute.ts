import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { FaultyConnection } from '@cde/server/providers/conformance/walk-world.ts';
import { type Answer, makeFakeResources } from './gce-fake-resources.ts';

const slowMs = 150;

export interface Refusal {
  /** `POST /zones/europe-west3-a/instances`, below the project. */
  call: RegExp;
  /** Of the call, or of the operation that it begins. */
  of: 'call' | 'operation';
  status: number;
  reason: string;
}

export interface FakeConnection extends FaultyConnection {
  url: string;
  /** Without those for operations. */
  calls: string[];
  refuse(refusal: Refusal, times?: number): void;
  allowAll(): void;
}

/** As the metadata service of a machine on which the server runs. */
function answerMetadata(path: string, outgoing: ServerResponse): void {
  const isToken = path.endsWith('/token');
  outgoing.writeHead(200, {
    'metadata-flavor': 'Google',
    'content-type': isToken ? 'application/json' : 'text/plain',
  });
  outgoing.end(
    isToken ? JSON.stringify({ access_token: 'fake', expires_in: 3600, token_type: 'Bearer' }) : 'default',
  );
}

/**
 * A fake of Google's Compute Engine API, because there is no emulator: it knows what the provider uses, as far as Google's
 * documentation tells it. What passes here can still fail on Google.
 */
export function makeFakeCompute(project: string, region: string) {
  const resources = makeFakeResources(project, region);

  /** A connection of one server, which can be cut, slow, or answer with errors. */
  async function connect(): Promise<FakeConnection> {
    let mode: Parameters<FaultyConnection['set']>[0] = 'open';
    let callsLeft = Number.POSITIVE_INFINITY;
    let isDead = false;
    let refusals: (Refusal & { times: number })[] = [];
    const calls: string[] = [];

    async function answer(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
      const chunks: Buffer[] = [];
      for await (const chunk of incoming) chunks.push(chunk as Buffer);
      const url = new URL(incoming.url!, 'http://fake');
      if (url.pathname.startsWith('/computeMetadata/')) return answerMetadata(url.pathname, outgoing);
      const below = url.pathname.replace(`/compute/v1/projects/${project}`, '');
      const call = `${incoming.method} ${below}`;
      if (!below.includes('/operations/')) calls.push(call);
      if (!isDead && callsLeft-- <= 0) isDead = true;
      if (isDead || mode === 'cut') return void incoming.socket.destroy();
      if (mode === 'slow') await delay(slowMs);
      const end = ({ status, body }: Answer) => {
        const text = JSON.stringify(body);
        outgoing
          .writeHead(status, {
            'content-type': 'application/json',
            'content-length': Buffer.byteLength(text),
          })
          .end(text);
      };
      if (mode === 'error')
        return void end({ status: 503, body: { error: { code: 503, message: 'injected' } } });
      const refusal = refusals.find((each) => each.times > 0 && each.call.test(call));
      if (refusal) refusal.times--;
      const body = Buffer.concat(chunks).toString();
      const reply = resources.handle({
        method: incoming.method!,
        path: url.pathname,
        query: url.searchParams,
        body: body === '' ? undefined : JSON.parse(body),
        isAuthorized: incoming.headers.authorization === 'Bearer fake',
        ...(refusal && { refusal }),
      });
      // Killed meanwhile: what was asked for is done, but nobody learns of it.
      if (isDead) return void incoming.socket.destroy();
      end(reply);
    }

    const server = createServer((incoming, outgoing) => {
      answer(incoming, outgoing).catch((error) => {
        outgoing.writeHead(400).end(JSON.stringify({ error: { code: 400, message: String(error) } }));
      });
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return {
      url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
      calls,
      refuse: (refusal, times = Number.POSITIVE_INFINITY) => void refusals.push({ ...refusal, times }),
      allowAll() {
        refusals = [];
      },
      set(next) {
        mode = next;
      },
      dieAfter(count) {
        callsLeft = count;
      },
      get isDead() {
        return isDead;
      },
      async close() {
        server.closeAllConnections();
        server.close();
      },
    };
  }

  return { ...resources, connect };
}

export type FakeCompute = ReturnType<typeof makeFakeCompute>;
