import type { IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import type { Duplex } from 'node:stream';
import { errorHeaders, targetHeader, visitHeader } from '../auth/handshake.ts';
import { asTunnelError, TunnelError } from '../errors.ts';
import type { PathKind } from '../pipe/path.ts';
import type { Pipe } from '../pipe/pipe.ts';
import { formatOffer, type OfferSource } from '../selection/offers.ts';
import { writeFairly } from '../streams/fair-write.ts';
import { formatTarget, parseTarget, splice, type Target } from '../streams/targets.ts';
import { type PortVisit, parseVisit } from '../streams/visits.ts';
import type { SessionContext } from './admission.ts';

/** What the agent does with a client's requests. */
export interface RequestOptions {
  pipe: Pipe;
  /**
   * Serves a stream. Return a Duplex (for example from connectTarget) to splice it with the stream, or nothing after
   * taking over the stream. Either way the client's stream then opens. Throw a TunnelError `target-…` to refuse.
   */
  onStream: (
    target: Target,
    stream: Duplex,
    context: SessionContext,
    /** Null if the client is no proxy of shared ports. */
    visit: PortVisit | null,
  ) => Promise<Duplex | undefined> | Duplex | undefined;
  /** Kinds of path that may carry streams, in addition to the ticket's restriction. */
  paths?: () => readonly PathKind[];
  /** Other paths that the client may use. */
  offers?: OfferSource;
  /**
   * Starts looking for a UDP path with the client. The returned function signals over a stream until that is done.
   * Throws if UDP is not available. Called only if such paths are allowed.
   */
  serveUdpSignaling?: (context: SessionContext) => (stream: Duplex) => Promise<void>;
}

/** True if paths of this kind may carry the session's streams. */
export function isPathAllowed(
  options: Pick<RequestOptions, 'paths'>,
  kind: PathKind,
  context: Pick<SessionContext, 'paths'>,
): boolean {
  return context.paths.includes(kind) && (options.paths?.().includes(kind) ?? true);
}

/** Connects a stream to the target that it names. `admitted` is undefined if the client has sent no ticket. */
export async function serveStream(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  admitted: Promise<SessionContext> | undefined,
  options: RequestOptions,
): Promise<void> {
  try {
    // HTTP/2 preserves the order of requests, so a hello would have arrived before.
    if (!admitted) throw new TunnelError('ticket-missing');
    const context = await admitted;
    if (!isPathAllowed(options, options.pipe.path.kind, context))
      throw new TunnelError('path-forbidden', `the current path is ${options.pipe.path.kind}`);
    const target = parseTarget(String(headers[targetHeader] ?? ''));
    if (context.only && !context.only.includes(formatTarget(target)))
      throw new TunnelError('target-forbidden', `the ticket only allows ${context.only.join(', ')}`);
    const told = headers[visitHeader];
    const visit = parseVisit(told === undefined ? undefined : String(told));
    const other = await options.onStream(target, writeFairly(stream), context, visit);
    if (stream.destroyed) {
      other?.destroy();
      return;
    }
    if (!stream.headersSent) stream.respond({ ':status': 200 });
    if (other) await splice(stream, other);
  } catch (error) {
    refuse(stream, asTunnelError(error, 'target-failed'));
  }
}

/** Sends the current offer, and another line whenever it changes. */
export async function serveOffers(
  stream: ServerHttp2Stream,
  admission: Promise<SessionContext>,
  { offers }: Pick<RequestOptions, 'offers'>,
): Promise<void> {
  if (!offers) return notFound(stream);
  let context: SessionContext;
  try {
    context = await admission;
  } catch (error) {
    return refuse(stream, asTunnelError(error, 'ticket-invalid'));
  }
  if (stream.destroyed) return;
  // Holders of a limited ticket do not learn where the agent is.
  if (context.only) return notFound(stream);
  stream.respond({ ':status': 200 });
  let last = '';
  const sendOffer = () => {
    const offer = offers.current();
    const paths = offer.paths.filter((kind) => context.paths.includes(kind));
    const line = formatOffer({ ...offer, paths });
    if (line !== last && !stream.destroyed && stream.writable) stream.write(line);
    last = line;
  };
  const stop = offers.onChange(sendOffer);
  stream.once('close', stop);
  stream.resume();
  stream.once('end', () => stream.end());
  sendOffer();
}

/** Looks for a UDP path with the client, which signals over the stream. */
export async function serveUdpSignaling(
  stream: ServerHttp2Stream,
  admission: Promise<SessionContext>,
  options: Pick<RequestOptions, 'paths' | 'serveUdpSignaling'>,
): Promise<void> {
  try {
    const context = await admission;
    if (!options.serveUdpSignaling) throw new TunnelError('path-unsupported', 'the agent does not offer it');
    if (!isPathAllowed(options, 'direct-udp', context)) throw new TunnelError('path-forbidden', 'direct-udp');
    const signal = options.serveUdpSignaling(context);
    stream.respond({ ':status': 200 });
    await signal(stream);
    stream.end();
  } catch (error) {
    refuse(stream, asTunnelError(error, 'path-unavailable'));
  }
}

export const notFound = (stream: ServerHttp2Stream) =>
  stream.respond({ ':status': 404 }, { endStream: true });

/** Answers with an error, or destroys the stream if it was answered already. */
export function refuse(stream: ServerHttp2Stream, error: TunnelError): void {
  if (stream.destroyed) return;
  if (stream.headersSent) stream.destroy(error);
  else stream.respond(errorHeaders(error), { endStream: true });
}
