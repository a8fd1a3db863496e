import type { ClientHttp2Session, ServerHttp2Stream } from 'node:http2';
import { legPath } from '../auth/handshake.ts';
import { asTunnelError } from '../errors.ts';
import type { PathKind } from '../pipe/path.ts';
import type { Pipe } from '../pipe/pipe.ts';
import type { SessionContext } from './admission.ts';
import type { Lifetime } from './lifetime.ts';
import { notFound, refuse } from './requests.ts';
import { pingAgent } from './streams.ts';

/** One round trip to the agent, by leg; times in milliseconds. */
export interface RoundTrip {
  kind: PathKind;
  /** The satellite's URL or the agent's address. */
  via: string;
  /** Through the pipe to the agent and back. */
  totalMs: number;
  /** To the satellite, over the connection that the session uses. Null if the path has one leg. */
  clientMs: number | null;
  /** From the agent to the satellite. Null if the path has one leg, or if it is unknown. */
  agentMs: number | null;
  /** `reported`: the agent is of an earlier release, which only reports a recent figure. */
  agentMsIs: 'measured' | 'reported' | null;
}

const legHeader = 'cde-leg-ms';
/** A satellite answers within this time, or the leg is unknown. */
const legTimeoutMs = 5_000;
/** The agent measures no more often than this, however often clients ask. */
const minPauseMs = 50;

/** Measures a round trip. `reportedMs` is what the agent last reported for a satellite. */
export async function measureRoundTrip(options: {
  h2: ClientHttp2Session;
  pipe: Pick<Pipe, 'path'>;
  lifetime: Pick<Lifetime, 'end'>;
  reportedMs: (via: string) => number | null;
}): Promise<RoundTrip> {
  const { h2, pipe, lifetime } = options;
  const { path } = pipe;
  const { kind, via } = path;
  const isRelay = path.measureLeg !== undefined;
  const [totalMs, clientMs, measured] = await Promise.all([
    pingAgent(h2, lifetime),
    path.measureLeg?.(AbortSignal.timeout(legTimeoutMs)) ?? null,
    isRelay ? askAgent(h2) : null,
  ]);
  // The session moved in the meantime: the parts belong to different paths.
  if (pipe.path !== path) {
    const { kind, via } = pipe.path;
    return { kind, via, totalMs, clientMs: null, agentMs: null, agentMsIs: null };
  }
  const agentMs = measured ?? (isRelay ? options.reportedMs(via) : null);
  const agentMsIs = measured !== null ? 'measured' : agentMs !== null ? 'reported' : null;
  return { kind, via, totalMs, clientMs, agentMs, agentMsIs };
}

/** The agent's round trip to the satellite; null if it does not know, or is of a release that cannot tell. */
function askAgent(h2: ClientHttp2Session): Promise<number | null> {
  return new Promise((resolve) => {
    const stream = h2.request({ ':method': 'POST', ':path': legPath }, { endStream: true });
    stream.setTimeout(legTimeoutMs, () => stream.close());
    stream.on('error', () => {});
    stream.once('close', () => resolve(null));
    stream.once('response', (headers) => {
      const ms = Number(headers[legHeader] ?? Number.NaN);
      resolve(headers[':status'] === 200 && ms >= 0 && ms < 60_000 ? ms : null);
    });
    stream.resume();
  });
}

/** The agent's side: measures its leg of the session's current path, once for all requests of a moment. */
export function makeLegMeter(pipe: Pick<Pipe, 'path'>): () => Promise<number | null> {
  let running: Promise<number | null> | undefined;
  let endedAt = Number.NEGATIVE_INFINITY;
  return () => {
    if (running && performance.now() - endedAt < minPauseMs) return running;
    endedAt = Number.POSITIVE_INFINITY;
    const measured = pipe.path.measureLeg?.(AbortSignal.timeout(legTimeoutMs)) ?? Promise.resolve(null);
    running = measured.finally(() => {
      endedAt = performance.now();
    });
    return running;
  };
}

/** Answers with the agent's leg. Holders of a limited ticket do not learn it. */
export async function serveLeg(
  stream: ServerHttp2Stream,
  admission: Promise<SessionContext>,
  measure: () => Promise<number | null>,
): Promise<void> {
  try {
    const { only } = await admission;
    if (only) return notFound(stream);
    const ms = await measure();
    if (stream.destroyed) return;
    stream.respond(
      { ':status': 200, ...(ms !== null && { [legHeader]: ms.toFixed(2) }) },
      { endStream: true },
    );
  } catch (error) {
    refuse(stream, asTunnelError(error, 'session-failed'));
  }
}
