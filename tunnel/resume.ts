import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import { isTunnelErrorCode, TunnelError } from './errors.ts';
import { closeFrame, type Frame, resumeFrame } from './frames.ts';
import type { Link } from './link.ts';

/**
 * How a pipe that has lost its path goes on over another. Both ends prove to hold a secret that only they can
 * compute, from the TLS connection that runs in the pipe, over nonces of both. README.md tells the sequence.
 */
export interface ResumeSecret {
  /** 16 bytes, to find the session by. No secret: satellites see it. */
  id: Buffer;
  /** 32 bytes. */
  key: Buffer;
}

/** The secret of a session, once TLS has shaken hands: the same on both ends (RFC 8446 §7.5). */
export function resumeSecret(socket: TLSSocket): ResumeSecret {
  const bytes = socket.exportKeyingMaterial(48, 'EXPORTER-cde-resume', Buffer.alloc(0));
  return { id: bytes.subarray(0, 16), key: bytes.subarray(16) };
}

const kinds = { ask: 1, answer: 2, confirm: 3 } as const;
const nonceBytes = 16;

/** What both sign: who says it, which session, fresh nonces, and where each end stands. */
interface Agreement {
  clientNonce: Buffer;
  agentNonce: Buffer;
  /** The position that each expects next. */
  clientPosition: number;
  agentPosition: number;
}

function proofOf(who: 'client' | 'agent', { id, key }: ResumeSecret, agreed: Agreement): Buffer {
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

/** The payload of a RESUME of that kind and length; throws `frame-malformed` for anything else. */
function payloadOf(frame: Frame, kind: number, length: number): Buffer {
  if (frame.type !== 'resume' || frame.payload.length !== 1 + length || frame.payload[0] !== kind)
    throw new TunnelError('frame-malformed', 'not what resumes a session');
  return frame.payload.subarray(1);
}

const frameOf = (kind: number, position: number, ...parts: Buffer[]) =>
  resumeFrame(Buffer.concat([Buffer.of(kind), ...parts]), position);

/**
 * The client's side, on a fresh path. Calls `attach` with the agent's position once both have proved
 * themselves; resolves to null then, or to the reason when the agent says that the session is over. Rejects
 * when the path does not serve; it is dropped then.
 */
export function askToResume(
  link: Link,
  secret: ResumeSecret,
  position: number,
  options: { timeoutMs: number; signal: AbortSignal; attach: (agentPosition: number) => void },
): Promise<TunnelError | null> {
  return new Promise((resolve, reject) => {
    const clientNonce = randomBytes(nonceBytes);
    const settle = () => {
      clearTimeout(timer);
      options.signal.removeEventListener('abort', abort);
    };
    const fail = (error: TunnelError) => {
      settle();
      link.drop();
      reject(error);
    };
    const abort = () => fail(new TunnelError('session-aborted'));
    const timer = setTimeout(() => fail(new TunnelError('session-timeout')), options.timeoutMs);
    options.signal.addEventListener('abort', abort, { once: true });
    if (options.signal.aborted) return abort();
    link.listen({
      frame(frame) {
        if (frame.type === 'close') {
          settle();
          link.drop();
          resolve(new TunnelError(isTunnelErrorCode(frame.code) ? frame.code : 'session-unknown'));
          return;
        }
        const payload = payloadOf(frame, kinds.answer, nonceBytes + 32);
        const agreed = {
          clientNonce,
          agentNonce: payload.subarray(0, nonceBytes),
          clientPosition: position,
          agentPosition: (frame as Extract<Frame, { type: 'resume' }>).position,
        };
        if (!timingSafeEqual(payload.subarray(nonceBytes), proofOf('agent', secret, agreed)))
          throw new TunnelError('resume-proof-invalid');
        settle();
        link.path.send(frameOf(kinds.confirm, position, proofOf('client', secret, agreed)));
        options.attach(agreed.agentPosition);
        resolve(null);
      },
      closed: (error) => fail(error ?? new TunnelError('agent-lost')),
      broken: fail,
    });
    link.path.send(frameOf(kinds.ask, position, secret.id, clientNonce));
  });
}

/** The session that a RESUME asks for, in hex; throws `frame-malformed`. */
export function askedFor(frame: Frame): string {
  return payloadOf(frame, kinds.ask, 16 + nonceBytes).toString('hex', 0, 16);
}

/**
 * The agent's side, from the client's first RESUME (`ask`) on: answers it and, once the client has proved
 * itself, calls `attach` with the client's position. Until then the session keeps the path it has. `failed` is
 * called instead where the path does not serve; it is dropped then.
 */
export function answerResume(
  link: Link,
  ask: Extract<Frame, { type: 'resume' }>,
  secret: ResumeSecret,
  position: number,
  events: { attach: (clientPosition: number) => void; failed: (error: TunnelError) => void },
): void {
  const agreed = {
    clientNonce: Buffer.from(payloadOf(ask, kinds.ask, 16 + nonceBytes).subarray(16)),
    agentNonce: randomBytes(nonceBytes),
    clientPosition: ask.position,
    agentPosition: position,
  };
  const fail = (error: TunnelError) => {
    link.path.send(closeFrame(error.code));
    link.drop();
    events.failed(error);
  };
  link.listen({
    frame(frame) {
      const proof = payloadOf(frame, kinds.confirm, 32);
      if (!timingSafeEqual(proof, proofOf('client', secret, agreed)))
        throw new TunnelError('resume-proof-invalid');
      events.attach(agreed.clientPosition);
    },
    closed: (error) => events.failed(error ?? new TunnelError('client-lost')),
    broken: fail,
  });
  link.path.send(frameOf(kinds.answer, position, agreed.agentNonce, proofOf('agent', secret, agreed)));
}
