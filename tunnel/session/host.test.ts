import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { connect as connectTls } from 'node:tls';
import { afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { makeCertificate } from '../auth/certificate.ts';
import { makeProof } from '../auth/handshake.ts';
import { makeClientKey } from '../auth/keys.ts';
import { makeTicketSigner, type TicketClaims } from '../auth/ticket.ts';
import { TunnelError } from '../errors.ts';
import { makePathPair } from '../paths/pair.ts';
import { makePipe } from '../pipe/pipe.ts';
import { type HostOptions, serveSession } from './host.ts';

/** The agent's side of a session, driven by a client that speaks HTTP/2 itself. session.test.ts covers both together. */
const signer = makeTicketSigner(generateKeyPairSync('ed25519').privateKey);
const workspaceId = randomUUID();
const clientKey = makeClientKey();
let certificate: Awaited<ReturnType<typeof makeCertificate>>;
beforeAll(async () => {
  certificate = await makeCertificate();
});
const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const clean of cleanups.splice(0)) clean();
});

async function connect(
  changes: Partial<HostOptions> = {},
  claims: Partial<TicketClaims> = {},
  headers: Record<string, string> = {},
) {
  const [client, agent] = makePathPair();
  const hosted = serveSession({
    pipe: makePipe({ path: agent }),
    tlsKey: certificate.key,
    tlsCert: certificate.cert,
    workspaceId: () => workspaceId,
    ticketKeys: () => [signer.publicKey],
    agentKey: certificate.fingerprint,
    onStream: (_target, stream) => {
      stream.pipe(stream);
      return undefined;
    },
    ...changes,
  });
  cleanups.push(() => hosted.close());
  const socket = connectTls({
    socket: makePipe({ path: client }).on('error', () => {}),
    ALPNProtocols: ['h2'],
    rejectUnauthorized: false,
  });
  socket.on('error', () => {});
  await once(socket, 'secureConnect');
  const h2 = connectHttp2('https://workspace', { createConnection: () => socket });
  h2.on('error', () => {});
  cleanups.push(() => h2.destroy());
  const ticket = await signer.signTicket({
    workspaceId,
    userId: randomUUID(),
    agentKey: certificate.fingerprint,
    clientKey: clientKey.publicKey,
    satellites: ['embedded'],
    paths: ['relay', 'direct-tcp'],
    jti: randomUUID(),
    exp: Math.floor(Date.now() / 1000) + 120,
    ...claims,
  });
  const hello = post(h2, '/v1/hello', {
    authorization: `Bearer ${ticket}`,
    'cde-proof': makeProof(socket, ticket, clientKey.privateKey),
    ...headers,
  });
  return { h2, hosted, hello };
}

function post(h2: ClientHttp2Session, path: string, headers: Record<string, string> = {}) {
  const stream = h2.request({ ':method': 'POST', ':path': path, ...headers });
  stream.on('error', () => {});
  return stream;
}

const open = (h2: ClientHttp2Session, target = 'ssh') => {
  const stream = h2.request({ ':method': 'CONNECT', ':authority': 'workspace', 'cde-target': target });
  stream.on('error', () => {});
  return stream;
};

async function reply(stream: ReturnType<typeof post>): Promise<unknown[]> {
  const [headers] = await once(stream, 'response');
  return [headers[':status'], headers['cde-error']];
}

describe('admission', () => {
  it('answers a hello once, with the id of the session', async () => {
    const onOpen = vi.fn();
    const { h2, hello } = await connect({ onOpen });
    const [headers] = await once(hello, 'response');
    expect(headers).toMatchObject({ ':status': 200, 'cde-session': onOpen.mock.calls[0]![0].sessionId });
    expect(await reply(post(h2, '/v1/hello'))).toEqual([404, undefined]);
  });

  it('makes a session resumable only if the client asks for that', async () => {
    const onResumable = vi.fn();
    const plain = await connect({ onResumable });
    expect(await reply(plain.hello)).toEqual([200, undefined]);
    expect(onResumable).not.toHaveBeenCalled();
    const lasting = await connect({ onResumable }, {}, { 'cde-wait': '60' });
    expect(await reply(lasting.hello)).toEqual([200, undefined]);
    expect(onResumable).toHaveBeenCalledWith(expect.anything(), 60_000, expect.anything());
  });

  it('lets streams wait for the authorization', async () => {
    const gate = Promise.withResolvers<void>();
    const { h2, hello } = await connect({ authorize: () => gate.promise });
    expect(await reply(hello)).toEqual([200, undefined]);
    const stream = reply(open(h2));
    const isPending = Symbol();
    expect(await Promise.race([stream, h2Ping(h2).then(() => isPending)])).toBe(isPending);
    gate.resolve();
    expect(await stream).toEqual([200, undefined]);
  });

  it('refuses the waiting streams if the authorization fails, and ends the session', async () => {
    const authorize = () => Promise.reject(new TunnelError('access-ended'));
    const { h2, hosted } = await connect({ authorize });
    expect(await reply(open(h2))).toEqual([502, 'access-ended']);
    expect((await hosted.closed).reason).toBe('access-ended');
  });
});

const h2Ping = (h2: ClientHttp2Session) => new Promise((resolve) => h2.ping(resolve));

describe('streams', () => {
  it('are refused over a kind of path that the agent or the ticket forbids', async () => {
    const byAgent = await connect({ paths: () => ['direct-tcp'] });
    expect(await reply(open(byAgent.h2))).toEqual([403, 'path-forbidden']);
    const byTicket = await connect({}, { paths: ['direct-tcp'] });
    expect(await reply(open(byTicket.h2))).toEqual([403, 'path-forbidden']);
  });

  it('are refused with the error of the handler, and for targets that cannot be parsed', async () => {
    const { h2 } = await connect({
      onStream() {
        throw new TunnelError('target-not-found', '/run/nothing.sock');
      },
    });
    expect(await reply(open(h2))).toEqual([404, 'target-not-found']);
    expect(await reply(open(h2, 'gopher:x'))).toEqual([400, 'target-invalid']);
  });
});

describe('offers', () => {
  function makeOffers() {
    const offer = {
      paths: ['relay', 'direct-tcp', 'direct-udp'] as const,
      satellites: [],
      addresses: ['10.0.0.1:1'],
    };
    const subscribers = new Set<() => void>();
    return {
      offer,
      subscribers,
      source: {
        current: () => offer,
        onChange(changed: () => void) {
          subscribers.add(changed);
          return () => subscribers.delete(changed);
        },
      },
    };
  }
  const change = ({ subscribers }: ReturnType<typeof makeOffers>) => {
    for (const changed of subscribers) changed();
  };

  it('are sent at once and after each change, with the paths that the ticket allows', async () => {
    const offers = makeOffers();
    const { h2 } = await connect({ offers: offers.source });
    const stream = post(h2, '/v1/offers').setEncoding('utf8');
    let text = '';
    stream.on('data', (chunk: string) => {
      text += chunk;
    });
    const lines = () =>
      text
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line));
    await vi.waitFor(() => expect(lines()).toHaveLength(1));
    expect(lines()[0]).toEqual({ paths: ['relay', 'direct-tcp'], satellites: [], addresses: ['10.0.0.1:1'] });
    // Nothing that the client can see has changed.
    change(offers);
    offers.offer.addresses = ['10.0.0.2:1'];
    change(offers);
    await vi.waitFor(() => expect(lines()).toHaveLength(2));
    expect(lines()[1].addresses).toEqual(['10.0.0.2:1']);
    stream.close();
    await vi.waitFor(() => expect(offers.subscribers.size).toBe(0));
  });

  it('are not made to holders of a limited ticket, nor by agents without any', async () => {
    const limited = await connect({ offers: makeOffers().source }, { only: ['ssh'] });
    expect(await reply(post(limited.h2, '/v1/offers'))).toEqual([404, undefined]);
    const none = await connect();
    expect(await reply(post(none.h2, '/v1/offers'))).toEqual([404, undefined]);
  });
});

describe('signaling for UDP', () => {
  it('is refused by an agent without it, and for tickets that do not allow it', async () => {
    const without = await connect({}, { paths: ['relay', 'direct-udp'] });
    expect(await reply(post(without.h2, '/v1/direct-udp'))).toEqual([502, 'path-unsupported']);
    const serveUdpSignaling = vi.fn(() => async () => {});
    const forbidden = await connect({ serveUdpSignaling });
    expect(await reply(post(forbidden.h2, '/v1/direct-udp'))).toEqual([403, 'path-forbidden']);
    expect(serveUdpSignaling).not.toHaveBeenCalled();
  });

  it('runs over the stream until it is done', async () => {
    const serveUdpSignaling: HostOptions['serveUdpSignaling'] = () => async (stream) => {
      stream.write('candidate');
    };
    const { h2 } = await connect({ serveUdpSignaling }, { paths: ['relay', 'direct-udp'] });
    const stream = post(h2, '/v1/direct-udp').setEncoding('utf8');
    let text = '';
    for await (const chunk of stream) text += chunk;
    expect(text).toBe('candidate');
  });
});
