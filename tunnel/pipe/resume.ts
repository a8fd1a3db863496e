import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import { isTunnelErrorCode, TunnelError } from '../errors.ts';
import { closeFrame, type Frame, resumeFrame } from './frames.ts';
import type { Link } from './link.ts';

/**
 * How a pipe continues over another path. Both ends prove that they hold a secret derived from the TLS connection
 * inside the pipe, over nonces of both. README.md describes the sequence.
 */
export interface ResumeSecret {
  /** 16 bytes that identify the session. Not secret: satellites see it. */
  id: Buffer;
  /** 32 bytes. */
  key: Buffer;
}

/** Derives the session's secret after the TLS handshake; both ends derive the same (RFC 8446 §7.5). */
export function resumeSecret(socket: TLSSocket): ResumeSecret {
  const bytes = socket.exportKeyingMaterial(48, 'EXPORTER-cde-resume', Buffer.alloc(0));
  return { id: bytes.subarray(0, 16), key: bytes.subarray(16) };
}

const kinds = { request: 1, answer: 2, confirm: 3, hold: 4, onSwitchRequest: 5 } as const;
const nonceBytes = 16;
/** Requests from a client that is not yet authenticated; it needs a few to measure the path. */
const maxRequests = 16;

/** The values that both ends authenticate. */
interface Agreement {
  clientNonce: Buffer;
  agentNonce: Buffer;
  /** The position that each end expects next. */
  clientPosition: number;
  agentPosition: number;
}

function proofOf(
  who: 'client' | 'agent' | 'client holds',
  { id, key }: ResumeSecret,
  agreed: Agreement,
): Buffer {
  const positions = Buffer.alloc(16);
  positions.writeBigUInt64BE(BigInt(agreed.clientPosition), 0);
  positions.writeBigUInt64BE(BigInt(agreed.agentPosition), 8);
  return createHmac('sha256', key)
    .update(`cde resume 1 ${who}\n`)
    .update(id)
    .update(agreed.clientNonce)
    .update(agreed.agentNonce)
    .update(positions)
    .digest();
}

const kindOf = (frame: Frame) => (frame.type === 'resume' ? frame.payload[0] : undefined);

/** Returns the payload of a RESUME frame of this kind and length; throws `frame-malformed` for anything else. */
function payloadOf(frame: Frame, kind: number, length: number): Buffer {
  if (frame.type !== 'resume' || frame.payload.length !== 1 + length || frame.payload[0] !== kind)
    throw new TunnelError('frame-malformed', 'not a valid RESUME');
  return frame.payload.subarray(1);
}

const frameOf = (kind: number, position: number, ...parts: Buffer[]) =>
  resumeFrame(Buffer.concat([Buffer.of(kind), ...parts]), position);

/** The client's end of a new path that may become the session's path or its reserve. */
export interface ResumeHandshake {
  readonly link: Link;
  /**
   * Exchanges positions with the agent. Resolves once the agent is authenticated, with its position and the round
   * trip, or with a refusal if the agent says that the session is over. If the path fails it is dropped and this
   * rejects. One request at a time.
   */
  request(position: number): Promise<{ agentPosition: number; rttMs: number } | { refusal: TunnelError }>;
  /** After an answer: moves the session to this path. The link then belongs to the pipe. Throws if it has broken. */
  confirm(): void;
  /** After an answer: the agent keeps the path in reserve and answers further requests. */
  hold(): void;
  drop(): void;
}

/**
 * Starts the resume handshake on a path. `closed` is called if the path ends between requests, `onSwitchRequest` when
 * the agent no longer hears anything over the session's path and asks the client to move here.
 */
export function makeResumeHandshake(
  link: Link,
  secret: ResumeSecret,
  options: {
    timeoutMs: number;
    signal: AbortSignal;
    closed?: (error: TunnelError) => void;
    onSwitchRequest?: () => void;
  },
): ResumeHandshake {
  let pending: { answered: (frame: Frame) => void; failed: (error: TunnelError) => void } | undefined;
  let agreed: Agreement | undefined;
  let over: TunnelError | undefined;
  const fail = (error: TunnelError) => {
    if (over) return;
    over = error;
    options.signal.removeEventListener('abort', abort);
    link.drop();
    if (pending) pending.failed(error);
    else options.closed?.(error);
  };
  const abort = () => fail(new TunnelError('session-aborted'));
  options.signal.addEventListener('abort', abort, { once: true });
  link.listen({
    frame(frame) {
      if (isSwitchRequest(frame)) options.onSwitchRequest?.();
      else if (pending) pending.answered(frame);
      else if (frame.type === 'close')
        fail(new TunnelError(isTunnelErrorCode(frame.code) ? frame.code : 'session-unknown'));
      else throw new TunnelError('frame-malformed', 'an answer without a request');
    },
    closed: (error) => fail(error ?? new TunnelError('agent-lost')),
    broken: fail,
  });
  if (options.signal.aborted) abort();

  /** The path now belongs to the pipe, or was dropped. */
  const detach = () => {
    over ??= new TunnelError('session-aborted');
    options.signal.removeEventListener('abort', abort);
  };
  const prove = (kind: number, who: 'client' | 'client holds') => {
    if (over) throw over;
    if (!agreed) throw new TunnelError('session-failed', 'the agent has not answered yet');
    link.path.send(frameOf(kind, agreed.clientPosition, proofOf(who, secret, agreed)));
  };

  return {
    link,
    request: (position) =>
      new Promise((resolve, reject) => {
        if (over) return reject(over);
        const clientNonce = randomBytes(nonceBytes);
        const askedAt = performance.now();
        const timer = setTimeout(() => fail(new TunnelError('session-timeout')), options.timeoutMs);
        const settle = () => {
          clearTimeout(timer);
          pending = undefined;
        };
        pending = {
          answered(frame) {
            if (frame.type === 'close') {
              settle();
              detach();
              link.drop();
              resolve({
                refusal: new TunnelError(isTunnelErrorCode(frame.code) ? frame.code : 'session-unknown'),
              });
              return;
            }
            const payload = payloadOf(frame, kinds.answer, nonceBytes + 32);
            agreed = {
              clientNonce,
              agentNonce: Buffer.from(payload.subarray(0, nonceBytes)),
              clientPosition: position,
              agentPosition: (frame as Extract<Frame, { type: 'resume' }>).position,
            };
            if (!timingSafeEqual(payload.subarray(nonceBytes), proofOf('agent', secret, agreed)))
              throw new TunnelError('resume-proof-invalid');
            settle();
            resolve({ agentPosition: agreed.agentPosition, rttMs: performance.now() - askedAt });
          },
          failed(error) {
            settle();
            reject(error);
          },
        };
        link.path.send(frameOf(kinds.request, position, secret.id, clientNonce));
      }),
    confirm() {
      prove(kinds.confirm, 'client');
      detach();
    },
    hold: () => prove(kinds.hold, 'client holds'),
    drop() {
      detach();
      link.drop();
      pending?.failed(new TunnelError('session-aborted'));
    },
  };
}

/** The id of the session that a RESUME asks for, in hex; throws `frame-malformed`. */
export function requestedSessionId(frame: Frame): string {
  return payloadOf(frame, kinds.request, 16 + nonceBytes).toString('hex', 0, 16);
}

/** Asks the client to move to this reserve. Only a hint, so it is not authenticated. */
export const switchRequestFrame = (): Buffer => frameOf(kinds.onSwitchRequest, 0);

/** May cross the client's own decision to move, so a pipe must ignore it. */
export const isSwitchRequest = (frame: Frame): boolean =>
  kindOf(frame) === kinds.onSwitchRequest && frame.type === 'resume';

/**
 * The agent's side, starting with the client's first RESUME: answers it and any further ones. Once the client is
 * authenticated it calls `attach` with the client's position and the agent position that was announced, or `hold` if
 * the path is to be a reserve. Until then the session stays on its current path. If the path fails it is dropped and
 * `failed` is called.
 */
export function serveResume(
  link: Link,
  first: Frame,
  secret: ResumeSecret,
  position: () => number,
  events: {
    attach: (clientPosition: number, said: number) => void;
    hold: () => void;
    failed: (error: TunnelError) => void;
  },
): void {
  let agreed: Agreement | undefined;
  let requests = 0;
  const fail = (error: TunnelError) => {
    link.path.send(closeFrame(error.code));
    link.drop();
    events.failed(error);
  };
  const checked = (frame: Frame, kind: number, who: 'client' | 'client holds'): Agreement => {
    const proof = payloadOf(frame, kind, 32);
    if (!agreed || !timingSafeEqual(proof, proofOf(who, secret, agreed)))
      throw new TunnelError('resume-proof-invalid');
    return agreed;
  };
  const answer = (request: Frame) => {
    if (requestedSessionId(request) !== secret.id.toString('hex') || ++requests > maxRequests)
      throw new TunnelError('frame-malformed', 'not a RESUME for this session');
    agreed = {
      clientNonce: Buffer.from(payloadOf(request, kinds.request, 16 + nonceBytes).subarray(16)),
      agentNonce: randomBytes(nonceBytes),
      clientPosition: (request as Extract<Frame, { type: 'resume' }>).position,
      agentPosition: position(),
    };
    link.path.send(
      frameOf(kinds.answer, agreed.agentPosition, agreed.agentNonce, proofOf('agent', secret, agreed)),
    );
  };
  link.listen({
    frame(frame) {
      switch (kindOf(frame)) {
        case kinds.request:
          return answer(frame);
        case kinds.hold:
          checked(frame, kinds.hold, 'client holds');
          requests = Number.NEGATIVE_INFINITY;
          return events.hold();
        default: {
          const { clientPosition, agentPosition } = checked(frame, kinds.confirm, 'client');
          events.attach(clientPosition, agentPosition);
        }
      }
    },
    closed: (error) => events.failed(error ?? new TunnelError('client-lost')),
    broken: fail,
  });
  answer(first);
}
