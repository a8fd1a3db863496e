import type { ClientHttp2Session } from 'node:http2';
import type { Duplex } from 'node:stream';
import { awaitResponse, targetHeader, visitHeader } from '../auth/handshake.ts';
import { asTunnelError, TunnelError } from '../errors.ts';
import { writeFairly } from '../streams/fair-write.ts';
import { formatTarget, type Target } from '../streams/targets.ts';
import { formatVisit, type PortVisit } from '../streams/visits.ts';
import type { Lifetime } from './lifetime.ts';

/** See Session.open. */
export async function openStream(
  h2: ClientHttp2Session,
  lifetime: Pick<Lifetime, 'end'>,
  target: Target,
  { eager = false, visit }: { eager?: boolean; visit?: PortVisit },
  onWrite: () => void = () => {},
): Promise<Duplex> {
  if (lifetime.end) throw lifetime.end.error ?? new TunnelError('session-closed');
  const stream = writeFairly(
    h2.request({
      ':method': 'CONNECT',
      ':authority': 'workspace',
      [targetHeader]: formatTarget(target),
      ...(visit && { [visitHeader]: formatVisit(visit) }),
    }),
  );
  const { write } = stream;
  stream.write = ((...input: Parameters<typeof write>) => {
    onWrite();
    return write.apply(stream, input);
  }) as typeof write;
  const opened = awaitResponse(stream).then(
    () => stream as Duplex,
    (error) => {
      const reason = lifetime.end?.error ?? asTunnelError(error, 'session-failed');
      stream.destroy(eager ? reason : undefined);
      throw reason;
    },
  );
  if (!eager) return opened;
  opened.catch(() => {});
  return stream;
}

/** The round trip to the agent in milliseconds. */
export function pingAgent(h2: ClientHttp2Session, lifetime: Pick<Lifetime, 'end'>): Promise<number> {
  return new Promise((resolve, reject) => {
    const fail = (error: unknown) => reject(lifetime.end?.error ?? asTunnelError(error, 'session-closed'));
    try {
      h2.ping((error, duration) => (error ? fail(error) : resolve(duration)));
    } catch (error) {
      fail(error);
    }
  });
}
