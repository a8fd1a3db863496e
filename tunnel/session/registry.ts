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
import {
  type HostedSession,
  type HostOptions,
  isPathAllowed,
  type SessionContext,
  serveSession,
} from './host.ts';

export interface SessionRegistryOptions extends Omit<HostOptions, 'pipe' | 'keep' | 'introduce'> {
  /** The longest that a session may be without a path; default 8 h: a laptop closed over lunch and a meeting. */
  waitMs?: number;
  /** How many sessions may be without a path at the same time; the one that waits longest ends then. Default 32. */
  maxWaiting?: number;
  /** How paths by UDP are found with clients; without it there are none. */
  udp?: UdpSource;
  clock?: Clock;
  /** Told of each new session, before its ticket is seen. */
  onSession?: (session: HostedSession) => void;
}

export interface UdpSource extends Pick<UdpOptions, 'bindAddress'>, DirectTimes {
  /** HOST:PORT of the STUN server to ask, for the nth attempt. */
  stun: (attempt: number) => string | undefined;
  /** There are none on this machine, and why. */
  onUnavailable?: (error: TunnelError) => void;
}

export interface SessionRegistry {
  /**
   * Takes a path that a client has dialled: for a new session, or to go on with one. Over a direct path no session
   * begins, and who does not ask for one that is kept here gets no word. `proved` is told when the client has
   * proved itself.
   */
  accept(path: Path, onAuthenticated?: () => void): void;
  /** The users whose sessions are here, those that wait for a path included. */
  users(): string[];
  /** Ends the sessions of a user, who may no longer have any: `access-ended`. */
  revokeUser(userId: string): void;
  /** Counts all sessions, those without a path, and the reserve paths of all. */
  stats(): { sessions: number; waiting: number; reserves: number };
  /** Ends all of them; the clients are told the code, and new paths are refused with it. */
  close(code?: TunnelErrorCode): void;
}

const defaultWaitMs = 8 * 3600_000;
const defaultMaxWaiting = 32;
/** Of how many ended sessions the reason is kept, for clients that come back late. */
const maxEndReasons = 256;

/** A client on our doorstep has nothing to think about; a stranger should not stay. */
const directHelloTimeoutMs = 3_000;
/** Of one session. The oldest goes. */
const maxReserves = 3;

/** Of paths by UDP and attempts at one, together: each has a descriptor, buffers and timers of its own. */
const maxUdp = 256;
/** Attempts of one session at the same time. */
const maxUdpAttempts = 2;
/** The client gives up before. */
const udpTimeoutMs = 20_000;

interface RetainedSession {
  pipe: Pipe;
  secret: ResumeSecret;
  context: SessionContext;
  /** Paths that the client keeps for the case that the one in use breaks. */
  reserves: Set<Link>;
}

/** The agent's side of all its sessions: keeps those whose client may come back, and knows them again. */
export function makeSessionRegistry(options: SessionRegistryOptions): SessionRegistry {
  const { clock = systemClock } = options;
  const helloTimeoutMs = options.admissionTimeoutMs ?? 10_000;
  /** Whose each is, once its ticket was accepted. */
  const hosted = new Map<HostedSession, SessionContext | null>();
  const retained = new Map<string, RetainedSession>();
  /** Those without a path, the longest first. */
  const waiting = new Set<RetainedSession>();
  /** Why sessions ended that a client may still ask for, oldest first. */
  const endReasons = new Map<string, TunnelErrorCode>();
  /** Paths of which it is not yet known what they are for. */
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
      throw new TunnelError('path-unavailable', 'the agent has too many paths by UDP already');
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
      ...(options.udp && { serveUdpSignaling: serveUdpSignaling }),
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
            options.log?.info({ code: reason.code }, 'session waits for a path');
            waiting.add(one);
            // The client may not know yet: it hears nothing, and has nothing to say.
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
        // A session that has ended is not to be found in the meantime either.
        pipe.once('close', () => waiting.delete(one));
      },
    });
    hosted.set(session, null);
    void session.closed.then(() => hosted.delete(session));
    options.onSession?.(session);
  }

  function resume(link: Link, ask: Frame, refuse: (code: TunnelErrorCode) => void, done: () => void): void {
    const id = requestedSessionId(ask);
    const one = retained.get(id);
    if (!one || one.pipe.destroyed) {
      refuse(endReasons.get(id) ?? 'session-unknown');
      return;
    }
    if (!isPathAllowed(options, link.path.kind, one.context)) {
      refuse('path-forbidden');
      return;
    }
    serveResume(link, ask, one.secret, () => one.pipe.expected, {
      attach(position, said) {
        done();
        one.reserves.delete(link);
        waiting.delete(one);
        one.pipe.attach(link, position, said);
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
        options.log?.info({ code: error.code, detail: error.detail }, 'session not resumed');
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
