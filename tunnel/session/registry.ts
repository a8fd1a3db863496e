import type { Duplex } from 'node:stream';
import { type Clock, systemClock } from '../clock.ts';
import { TunnelError, type TunnelErrorCode } from '../errors.ts';
import { loadNative } from '../paths/datachannel.ts';
import { connectUdp, type UdpOptions, udpCount } from '../paths/direct-udp.ts';
import type { DirectTimes } from '../paths/liveness.ts';
import { closeFrame, type Frame } from '../pipe/frames.ts';
import { type Link, makeLink } from '../pipe/link.ts';
import type { Path } from '../pipe/path.ts';
import { makePipe, type Pipe } from '../pipe/pipe.ts';
import { type ResumeSecret, requestedSessionId, serveResume, switchRequestFrame } from '../pipe/resume.ts';
import type { SessionContext } from './admission.ts';
import { type HostedSession, type HostOptions, serveSession } from './host.ts';
import { isPathAllowed } from './requests.ts';

export interface SessionRegistryOptions
  extends Omit<HostOptions, 'pipe' | 'onResumable' | 'serveUdpSignaling'> {
  /** How long a session may be without a path; default 8 h, for a laptop closed over lunch and a meeting. */
  waitMs?: number;
  /** Sessions that may be without a path at the same time; beyond it the longest waiting ends. Default 32. */
  maxWaiting?: number;
  /** Enables paths by UDP. */
  udp?: UdpSource;
  clock?: Clock;
  /** Called for each new session, before its ticket is verified. */
  onSession?: (session: HostedSession) => void;
}

export interface UdpSource extends Pick<UdpOptions, 'bindAddress'>, DirectTimes {
  /** HOST:PORT of the STUN server for the nth attempt. */
  stun: (attempt: number) => string | undefined;
  /** Called if this machine does not support such paths. */
  onUnavailable?: (error: TunnelError) => void;
}

export interface SessionRegistry {
  /**
   * Accepts a path that a client has dialled, for a new session or to resume one. Over a direct path sessions can only
   * be resumed, and other clients get no response. `onAuthenticated` is called when the client has resumed a session.
   */
  accept(path: Path, onAuthenticated?: () => void): void;
  /** The users of all sessions, including those without a path. */
  users(): string[];
  /** Ends a user's sessions with `access-ended`. */
  revokeUser(userId: string): void;
  /** Counts all sessions, those without a path, and the reserve paths of all. */
  stats(): { sessions: number; waiting: number; reserves: number };
  /** Ends all sessions with the code, and refuses new paths with it. */
  close(code?: TunnelErrorCode): void;
}

const defaultWaitMs = 8 * 3600_000;
const defaultMaxWaiting = 32;
/** Ended sessions whose end reason is kept for clients that return late. */
const maxEndReasons = 256;

/** Our clients send their request at once; strangers should not stay. */
const directHelloTimeoutMs = 3_000;
/** Per session; the oldest is dropped. */
const maxReserves = 3;

/** UDP paths and attempts together: each has its own descriptor, buffers and timers. */
const maxUdp = 256;
/** Concurrent attempts per session. */
const maxUdpAttempts = 2;
/** Longer than the client's timeout. */
const udpTimeoutMs = 20_000;

interface RetainedSession {
  pipe: Pipe;
  secret: ResumeSecret;
  context: SessionContext;
  /** Paths that the client holds in case the active one breaks. */
  reserves: Set<Link>;
}

/** All sessions of an agent: retains those whose clients may return, and lets them resume. */
export function makeSessionRegistry(options: SessionRegistryOptions): SessionRegistry {
  const { clock = systemClock } = options;
  const helloTimeoutMs = options.admissionTimeoutMs ?? 10_000;
  /** All sessions; the context is null until the ticket was accepted. */
  const hosted = new Map<HostedSession, SessionContext | null>();
  const retained = new Map<string, RetainedSession>();
  /** Sessions without a path, the longest waiting first. */
  const waiting = new Set<RetainedSession>();
  /** End reasons of recent sessions, oldest first. */
  const endReasons = new Map<string, TunnelErrorCode>();
  /** Paths that have not sent their first frame, or are not authenticated. */
  const pending = new Set<Link>();
  let closed: TunnelErrorCode | undefined;

  const attempts = new WeakMap<SessionContext, number>();
  let attempted = 0;
  function serveUdpSignaling(context: SessionContext): (stream: Duplex) => Promise<void> {
    const { stun, onUnavailable, ...rest } = options.udp!;
    try {
      loadNative();
    } catch (error) {
      onUnavailable?.(error as TunnelError);
      throw error;
    }
    const others = attempts.get(context) ?? 0;
    if (closed || others >= maxUdpAttempts || udpCount() >= maxUdp)
      throw new TunnelError('path-unavailable', 'the agent has reached its limit of UDP paths');
    attempts.set(context, others + 1);
    return async (stream) => {
      try {
        const options = { ...rest, stun: stun(attempted++), timeoutMs: udpTimeoutMs, signal: context.signal };
        accept(await connectUdp('answer', stream, options));
      } finally {
        attempts.set(context, attempts.get(context)! - 1);
      }
    };
  }

  function serve(link: Link): void {
    const pipe = makePipe({ path: link.path, link, clock });
    const session = serveSession({
      ...options,
      ...(options.udp && { serveUdpSignaling }),
      pipe,
      onOpen(context) {
        hosted.set(session, context);
        options.onOpen?.(context);
      },
      onResumable(secret, wantedMs, context) {
        const id = secret.id.toString('hex');
        const one: RetainedSession = { pipe, secret, context, reserves: new Set() };
        retained.set(id, one);
        pipe.enableResume({
          waitMs: Math.min(wantedMs, options.waitMs ?? defaultWaitMs),
          lost(reason) {
            options.log?.info({ code: reason.code }, 'session lost its path');
            waiting.add(one);
            // The client may not have noticed, if it neither sends nor receives anything.
            if (reason.code !== 'pipe-closed')
              for (const link of one.reserves) link.path.send(switchRequestFrame());
            if (waiting.size <= (options.maxWaiting ?? defaultMaxWaiting)) return;
            const [longest] = waiting;
            longest!.pipe.destroy(new TunnelError('session-displaced'));
          },
        });
        void session.closed.then(({ reason }) => {
          retained.delete(id);
          waiting.delete(one);
          for (const link of one.reserves) link.drop();
          endReasons.set(id, reason);
          const [oldest] = endReasons.keys();
          if (endReasons.size > maxEndReasons) endReasons.delete(oldest!);
        });
        // `session.closed` resolves later.
        pipe.once('close', () => waiting.delete(one));
      },
    });
    hosted.set(session, null);
    void session.closed.then(() => hosted.delete(session));
    options.onSession?.(session);
  }

  function resume(
    link: Link,
    request: Frame,
    refuse: (code: TunnelErrorCode) => void,
    done: () => void,
  ): void {
    const id = requestedSessionId(request);
    const one = retained.get(id);
    if (!one || one.pipe.destroyed) {
      refuse(endReasons.get(id) ?? 'session-unknown');
      return;
    }
    if (!isPathAllowed(options, link.path.kind, one.context)) {
      refuse('path-forbidden');
      return;
    }
    serveResume(link, request, one.secret, () => one.pipe.expected, {
      attach(position, announced) {
        done();
        one.reserves.delete(link);
        waiting.delete(one);
        one.pipe.attach(link, position, announced);
      },
      hold() {
        done();
        if (one.pipe.destroyed) return link.drop();
        one.reserves.add(link);
        const [oldest] = one.reserves;
        if (one.reserves.size <= maxReserves) return;
        one.reserves.delete(oldest!);
        oldest!.drop();
      },
      failed(error) {
        done();
        if (one.reserves.delete(link)) return;
        options.log?.info({ code: error.code, detail: error.detail }, 'resume failed');
      },
    });
  }

  function accept(path: Path, onAuthenticated?: () => void): void {
    const link = makeLink(path);
    const direct = path.kind !== 'relay';
    const settle = () => {
      clearTimeout(timer);
      pending.delete(link);
    };
    const refuse = (code: TunnelErrorCode) => {
      settle();
      if (!direct) link.path.send(closeFrame(code));
      link.drop();
    };
    const timer = setTimeout(() => refuse('session-timeout'), direct ? directHelloTimeoutMs : helloTimeoutMs);
    pending.add(link);
    link.listen({
      frame(frame) {
        if (closed) return refuse(closed);
        if (frame.type === 'resume')
          return resume(link, frame, refuse, () => {
            settle();
            onAuthenticated?.();
          });
        if (direct) return refuse('frame-malformed');
        settle();
        serve(link);
        link.deliver(frame);
      },
      closed: settle,
      broken: (error) => refuse(error.code),
    });
  }

  return {
    accept,
    users: () => [...new Set([...hosted.values()].flatMap((context) => (context ? [context.userId] : [])))],
    revokeUser(userId) {
      for (const [session, context] of hosted) if (context?.userId === userId) session.close('access-ended');
    },
    stats: () => ({
      sessions: hosted.size,
      waiting: waiting.size,
      reserves: [...retained.values()].reduce((sum, { reserves }) => sum + reserves.size, 0),
    }),
    close(code = 'agent-closed') {
      closed = code;
      for (const link of pending) link.drop();
      for (const session of hosted.keys()) session.close(code);
    },
  };
}
