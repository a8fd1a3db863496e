import { generateKeyPairSync, type KeyObject, randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { connect as connectHttp2 } from 'node:http2';
import { type AddressInfo, createServer } from 'node:net';
import type { Duplex } from 'node:stream';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { afterEach, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { makeCertificate } from '../auth/certificate.ts';
import { makeProof } from '../auth/handshake.ts';
import { makeClientKey } from '../auth/keys.ts';
import { makeTicketSigner, type TicketClaims } from '../auth/ticket.ts';
import { TunnelError } from '../errors.ts';
import { makePathPair, type PairEnd } from '../paths/pair.ts';
import { makePipe } from '../pipe/pipe.ts';
import { connectTarget } from '../streams/targets.ts';
import type { SessionContext } from './admission.ts';
import { type HostedSession, type HostOptions, serveSession } from './host.ts';
import { openSessionOver, type Session } from './session.ts';

/** Client and agent over a path in memory: what a satellite would carry between them, it cannot break. */
const signer = makeTicketSigner(generateKeyPairSync('ed25519').privateKey);
const workspaceId = randomUUID();
const clientKey = makeClientKey();
const now = new Date('2026-03-01T12:00:00Z');
const seconds = now.getTime() / 1000;
let certificate: Awaited<ReturnType<typeof makeCertificate>>;
beforeAll(async () => {
  certificate = await makeCertificate();
});

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const clean of cleanups.splice(0)) clean();
});

function makeTicket(changes: Partial<TicketClaims> = {}): Promise<string> {
  return signer.signTicket({
    workspaceId,
    workspace: 'ada/hello',
    userId: randomUUID(),
    username: 'ada',
    agentKey: certificate.fingerprint,
    clientKey: clientKey.publicKey,
    satellites: ['embedded'],
    jti: randomUUID(),
    exp: seconds + 120,
    ...changes,
  });
}

interface Ends {
  client: PairEnd;
  agent: PairEnd;
  hosted: HostedSession;
}

/** An agent that serves one path; the default handler echoes. */
function makeHost(changes: Partial<HostOptions> = {}): Ends {
  const [client, agent] = makePathPair();
  const hosted = serveSession({
    pipe: makePipe({ path: agent }),
    tlsKey: certificate.key,
    tlsCert: certificate.cert,
    workspaceId,
    ticketKeys: [signer.publicKey],
    agentKey: certificate.fingerprint,
    onStream: (_target, stream) => {
      stream.pipe(stream);
      return undefined;
    },
    now: () => now,
    ...changes,
  });
  cleanups.push(() => hosted.close());
  return { client, agent, hosted };
}

async function open(
  ends: Ends,
  changes: {
    ticket?: string;
    agentKey?: string;
    clientPrivateKey?: KeyObject;
    signal?: AbortSignal;
    handshakeTimeoutMs?: number;
  } = {},
): Promise<Session> {
  const session = await openSessionOver(ends.client, {
    ticket: changes.ticket ?? (await makeTicket()),
    agentKey: certificate.fingerprint,
    clientPrivateKey: clientKey.privateKey,
    ...changes,
  });
  cleanups.push(() => session.close());
  return session;
}

async function readAll(stream: Duplex): Promise<string> {
  let text = '';
  for await (const chunk of stream.setEncoding('utf8')) text += chunk;
  return text;
}

const code = (expected: string) => expect.objectContaining({ code: expected });
const ssh = { kind: 'ssh' } as const;

describe('a session', () => {
  it('carries streams both ways, and the agent learns who connected', async () => {
    const seen: SessionContext[] = [];
    const ends = makeHost({
      onStream(target, stream, context) {
        seen.push(context);
        stream.end(JSON.stringify(target));
        return undefined;
      },
    });
    const userId = randomUUID();
    const session = await open(ends, { ticket: await makeTicket({ userId }) });
    const target = { kind: 'unix', path: '/run/a b.sock' } as const;
    expect(JSON.parse(await readAll(await session.open(target)))).toEqual(target);
    const { sessionId } = await session.ready;
    expect(seen).toEqual([expect.objectContaining({ sessionId, workspaceId, userId })]);
    expect(await session.ping()).toBeGreaterThan(0);
  });

  it("with a limited ticket opens only what it names, and does not learn the agent's addresses", async () => {
    const offers = {
      current: () => ({ paths: [], satellites: [], addresses: ['10.1.1.1:7100'] }),
      onChange: () => () => {},
    };
    const session = await open(makeHost({ offers }), {
      ticket: await makeTicket({ only: ['tcp:localhost:3000'] }),
    });
    const stream = await session.open({ kind: 'tcp', host: 'localhost', port: 3000 });
    stream.end('a page');
    expect(await readAll(stream)).toBe('a page');
    for (const target of [
      ssh,
      { kind: 'files' },
      { kind: 'tcp', host: 'localhost', port: 3001 },
      { kind: 'tcp', host: '127.0.0.1', port: 3000 },
      { kind: 'udp', host: 'localhost', port: 3000 },
      { kind: 'unix', path: '/run/docker.sock' },
    ] as const)
      await expect(session.open(target)).rejects.toEqual(code('target-forbidden'));
  });

  it('serves no stream before its user is known to have access, and none after the user has lost it', async () => {
    const served: string[] = [];
    const onStream: HostOptions['onStream'] = (_target, stream, { userId }) => {
      served.push(userId);
      stream.pipe(stream);
      return undefined;
    };
    let answer: (error?: TunnelError) => void = () => {};
    const authorize = () =>
      new Promise<void>((resolve, reject) => {
        answer = (error) => (error ? reject(error) : resolve());
      });
    const [ada, eve] = [randomUUID(), randomUUID()];
    const allowed = await open(makeHost({ onStream, authorize }), {
      ticket: await makeTicket({ userId: ada }),
    });
    const stream = allowed.open(ssh);
    await allowed.ready;
    expect(served).toEqual([]);
    answer();
    (await stream).end('in');
    expect(await readAll(await stream)).toBe('in');

    const suspended = makeHost({ onStream, authorize });
    const session = await open(suspended, { ticket: await makeTicket({ userId: eve }) });
    const refused = session.open(ssh);
    refused.catch(() => {});
    await session.ready;
    answer(new TunnelError('access-ended'));
    await expect(refused).rejects.toEqual(code('access-ended'));
    expect((await suspended.hosted.closed).reason).toBe('access-ended');
    expect((await session.closed).reason).toBe('access-ended');
    expect(served).toEqual([ada]);
  });

  it('half-closes streams in both directions', async () => {
    const session = await open(
      makeHost({
        async onStream(_target, stream) {
          void readAll(stream).then((question) => stream.end(`${question}!`));
          return undefined;
        },
      }),
    );
    const stream = await session.open(ssh);
    stream.write('who ');
    stream.end('is there');
    expect(await readAll(stream)).toBe('who is there!');
  });

  it('carries many streams at once without mixing them', async () => {
    const session = await open(makeHost());
    await Promise.all(
      Array.from({ length: 200 }, async (_, index) => {
        const stream = await session.open(ssh);
        const sent = randomBytes(20_000).toString('hex') + index;
        stream.end(sent);
        expect(await readAll(stream)).toBe(sent);
      }),
    );
  });

  it('connects TCP targets, or says why the agent could not', async () => {
    const server = createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const session = await open(
      makeHost({ onStream: (target) => (target.kind === 'ssh' ? undefined : connectTarget(target)) }),
    );
    const stream = await session.open({ kind: 'tcp', host: '127.0.0.1', port });
    stream.end('over tcp');
    expect(await readAll(stream)).toBe('over tcp');
    server.close();
    await once(server, 'close');
    await expect(session.open({ kind: 'tcp', host: '127.0.0.1', port })).rejects.toEqual(
      code('target-refused'),
    );
    await expect(session.open({ kind: 'unix', path: '/nonexistent ü' })).rejects.toMatchObject({
      code: 'target-not-found',
      detail: expect.stringContaining('/nonexistent ü'),
    });
    // The session is none the worse for it.
    expect(await session.ping()).toBeGreaterThan(0);
  });

  it('passes on that the program or the client disconnected', async () => {
    const seen: Promise<unknown>[] = [];
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      const broken = new Promise((resolve) => socket.once('error', resolve));
      seen.push(broken);
      socket.write('some');
      socket.once('data', () => socket.resetAndDestroy());
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const session = await open(
      makeHost({ onStream: (target) => (target.kind === 'ssh' ? undefined : connectTarget(target)) }),
    );
    const reset = await session.open({ kind: 'tcp', host: '127.0.0.1', port });
    await once(reset, 'data');
    reset.write('now');
    expect((await once(reset, 'error'))[0].message).toContain('NGHTTP2_CONNECT_ERROR');
    const dropped = await session.open({ kind: 'tcp', host: '127.0.0.1', port });
    await once(dropped, 'data');
    dropped.destroy();
    expect(await seen[1]).toEqual(code('ECONNRESET'));
    server.close();
  });

  it('writes before the answer when asked to, and breaks that stream when refused', async () => {
    const session = await open(
      makeHost({
        onStream(target, stream) {
          if (target.kind !== 'ssh') throw new TunnelError('target-forbidden');
          stream.pipe(stream);
          return undefined;
        },
      }),
    );
    const stream = await session.open(ssh, { eager: true });
    stream.end('early');
    expect(await readAll(stream)).toBe('early');
    const refused = await session.open({ kind: 'unix', path: '/x' }, { eager: true });
    expect((await once(refused, 'error'))[0]).toEqual(code('target-forbidden'));
  });

  it('survives the expiry of its ticket', async () => {
    let at = now;
    const session = await open(makeHost({ now: () => at }));
    await session.ready;
    at = new Date(now.getTime() + 3_600_000);
    const stream = await session.open(ssh);
    stream.end('still here');
    expect(await readAll(stream)).toBe('still here');
  });

  it('ends for both when the client closes it, the agent closes it, or the path breaks', async () => {
    const closing = makeHost();
    const closed = await open(closing);
    const idle = await closed.open(ssh);
    closed.close();
    expect(await closed.closed).toEqual({ reason: 'session-closed', error: null });
    expect((await closing.hosted.closed).reason).toBe('session-closed');
    expect(idle.destroyed).toBe(true);
    await expect(closed.open(ssh)).rejects.toEqual(code('session-closed'));
    await expect(closed.ping()).rejects.toEqual(code('session-closed'));

    const stopping = makeHost();
    const stopped = await open(stopping);
    const broken = await stopped.open(ssh);
    const error = once(broken, 'error');
    stopping.hosted.close();
    expect((await stopped.closed).reason).toBe('agent-closed');
    expect((await error)[0]).toEqual(code('agent-closed'));

    const cutting = makeHost();
    const cut = await open(cutting);
    cutting.client.cut(new TunnelError('satellite-lost'));
    expect((await cut.closed).reason).toBe('satellite-lost');
    expect((await cutting.hosted.closed).reason).toBe('satellite-lost');
  });

  it('can be cancelled, and gives up on an agent that does not respond', async () => {
    const [client] = makePathPair();
    const silent = { ...makeHost(), client };
    const signal = AbortSignal.abort();
    await expect(open(silent, { signal })).rejects.toThrow();
    const [deaf] = makePathPair();
    await expect(open({ ...silent, client: deaf }, { handshakeTimeoutMs: 20 })).rejects.toEqual(
      code('session-timeout'),
    );
  });
});

describe('the agent rejects clients', () => {
  /** What a client that is refused gets to see, and that no stream has reached the agent's handler. */
  async function refusal(host: Partial<HostOptions>, client: Parameters<typeof open>[1]): Promise<unknown> {
    let reached = false;
    const ends = makeHost({
      onStream: () => {
        reached = true;
        return undefined;
      },
      ...host,
    });
    const session = await open(ends, client);
    const reasons = await Promise.all([
      session.open(ssh).catch((error: TunnelError) => error.code),
      session.ready.catch((error: TunnelError) => error.code),
      session.closed.then((end) => end.reason),
    ]);
    expect(new Set(reasons).size).toBe(1);
    expect(reached).toBe(false);
    return reasons[0];
  }

  it('with an expired ticket', async () => {
    expect(await refusal({}, { ticket: await makeTicket({ exp: seconds - 60 }) })).toBe('ticket-expired');
  });
  it('with a ticket that another server signed', async () => {
    const other = makeTicketSigner(generateKeyPairSync('ed25519').privateKey);
    expect(await refusal({ ticketKeys: () => [other.publicKey] }, {})).toBe('ticket-invalid');
  });
  it('with a ticket for another workspace', async () => {
    const ticket = await makeTicket({ workspaceId: randomUUID() });
    expect(await refusal({}, { ticket })).toBe('ticket-wrong-workspace');
  });
  it('with a ticket for another agent', async () => {
    const ticket = await makeTicket({ agentKey: 'a'.repeat(43) });
    expect(await refusal({}, { ticket })).toBe('ticket-wrong-agent');
  });
  it('with a ticket whose key the client does not hold', async () => {
    expect(await refusal({}, { clientPrivateKey: makeClientKey().privateKey })).toBe('ticket-proof-invalid');
  });
  it('with a listen token', async () => {
    const ticket = await signer.signListenToken({ workspaceId, buildId: randomUUID(), exp: seconds + 60 });
    expect(await refusal({}, { ticket })).toBe('ticket-invalid');
  });

  /** A client that says what it likes inside TLS. */
  async function speak(ends: Ends): Promise<{ socket: TLSSocket; h2: ReturnType<typeof connectHttp2> }> {
    const socket = connectTls({
      socket: makePipe({ path: ends.client }).on('error', () => {}),
      ALPNProtocols: ['h2'],
      rejectUnauthorized: false,
    });
    socket.on('error', () => {});
    await once(socket, 'secureConnect');
    const h2 = connectHttp2('https://workspace', { createConnection: () => socket });
    h2.on('error', () => {});
    cleanups.push(() => h2.destroy());
    return { socket, h2 };
  }
  async function ask(
    h2: ReturnType<typeof connectHttp2>,
    headers: Record<string, string>,
  ): Promise<unknown[]> {
    const stream = h2.request(headers);
    stream.on('error', () => {});
    const [reply] = await once(stream, 'response');
    return [reply[':status'], reply['cde-error']];
  }

  it('that replay another connection’s ticket and proof', async () => {
    const ticket = await makeTicket();
    const first = await speak(makeHost());
    const hello = {
      ':method': 'POST',
      ':path': '/v1/hello',
      authorization: `Bearer ${ticket}`,
      'cde-proof': makeProof(first.socket, ticket, clientKey.privateKey),
    };
    expect(await ask(first.h2, hello)).toEqual([200, undefined]);
    const second = await speak(makeHost());
    expect(await ask(second.h2, hello)).toEqual([401, 'ticket-proof-invalid']);
    // And one proof does not serve for another ticket on its own connection.
    const third = await speak(makeHost());
    const proof = makeProof(third.socket, ticket, clientKey.privateKey);
    const another = { ...hello, authorization: `Bearer ${await makeTicket()}`, 'cde-proof': proof };
    expect(await ask(third.h2, another)).toEqual([401, 'ticket-proof-invalid']);
  });

  it('that open streams without a ticket, or send other requests', async () => {
    const { h2 } = await speak(makeHost());
    const stream = { ':method': 'CONNECT', ':authority': 'workspace', 'cde-target': 'ssh' };
    expect(await ask(h2, stream)).toEqual([401, 'ticket-missing']);
    expect(await ask(h2, { ':path': '/' })).toEqual([404, undefined]);
    expect(await ask(h2, { ':method': 'POST', ':path': '/v1/hello' })).toEqual([401, 'ticket-missing']);
  });

  it('that show no ticket in time', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    onTestFinished(() => void vi.useRealTimers());
    const ends = makeHost();
    await speak(ends);
    vi.advanceTimersByTime(10_000);
    expect((await ends.hosted.closed).reason).toBe('session-timeout');
  });

  it('that do not use TLS', async () => {
    const ends = makeHost();
    makePipe({ path: ends.client })
      .on('error', () => {})
      .write('SSH-2.0-OpenSSH_9.9\r\n'.repeat(100));
    expect((await ends.hosted.closed).reason).toBe('session-failed');
  });
});

describe('the client', () => {
  it('says nothing to an agent that does not hold the pinned key', async () => {
    const impostor = await makeCertificate();
    let opened = false;
    const ends = makeHost({
      tlsKey: impostor.key,
      tlsCert: impostor.cert,
      onOpen: () => {
        opened = true;
      },
    });
    await expect(open(ends)).rejects.toEqual(code('agent-key-mismatch'));
    expect((await ends.hosted.closed).reason).toBe('agent-key-mismatch');
    expect(opened).toBe(false);
  });

  it('disconnects if a byte was changed on the way', async () => {
    const ends = makeHost();
    const { client } = ends;
    const send = client.send;
    let sent = 0;
    client.send = (chunk) => {
      sent += chunk.length;
      if (sent > 20_000) chunk[chunk.length - 1]! ^= 1;
      return send(chunk);
    };
    const session = await open(ends);
    const stream = await session.open(ssh);
    stream.on('error', () => {});
    stream.write(randomBytes(50_000));
    expect((await session.closed).error).toBeInstanceOf(TunnelError);
    expect((await ends.hosted.closed).reason).toBe('session-failed');
  });
});
