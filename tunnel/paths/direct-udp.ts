import type { Duplex } from 'node:stream';
import { TunnelError } from '../errors.ts';
import { formatAddress } from '../network/addresses.ts';
import type { Path, PathEvents } from '../pipe/path.ts';
import { type DataChannel, loadNative, type PeerConnection, releaseNative } from './datachannel.ts';
import {
  describe,
  formatIce,
  helloOf,
  type IceCandidate,
  type IceMessage,
  makeIceReader,
  parseCandidate,
} from './ice.ts';
import { type DirectTimes, watchLiveness } from './liveness.ts';

/** As for the other paths: what lies here goes before any keystroke that follows. */
const sendHigh = 256 * 1024;
const sendLow = 64 * 1024;
/** What may wait for a reader that rests. The other end's pipe stops at half of that. */
const maxUnreadBytes = 8 * 1024 * 1024;
/** How long the other end may take to agree that it is over. */
const closeTimeoutMs = 3_000;

export interface UdpOptions extends DirectTimes {
  /** HOST:PORT of a STUN server, to be found through NATs; without one only where there is none. */
  stun?: string | undefined;
  /** Takes the address of this interface alone. */
  bindAddress?: string | undefined;
  /** From the beginning to the open path. */
  timeoutMs: number;
  signal: AbortSignal;
}

/** The descriptors and threads are the process's; so many paths at the most, and attempts at one. */
let open = 0;
/** How many direct-udp paths and attempts this process has. */
export const udpCount = (): number => open;

/**
 * Finds a path by UDP together with the other end, who does the same in the other role: the client offers. They talk
 * over `stream`, inside the session; the end that made it closes it. Rejects with `path-unreachable`, in words for a
 * person, or `path-unsupported` where the native module does not load; nothing is left behind then.
 */
export function connectUdp(role: 'offer' | 'answer', stream: Duplex, options: UdpOptions): Promise<Path> {
  return new Promise((resolve, reject) => {
    if (options.signal.aborted) throw new TunnelError('session-aborted');
    const { PeerConnection } = loadNative();
    const peer = new PeerConnection('cde', {
      iceServers: options.stun ? [`stun:${options.stun}`] : [],
      ...(options.bindAddress && { bindAddress: options.bindAddress }),
      maxMessageSize: 256 * 1024,
    });
    open++;
    let released = false;
    const release = () => {
      if (released) return;
      released = true;
      open--;
      peer.close();
      // An agent goes on, and is asked again; a client may be done.
      if (open === 0 && role === 'offer') releaseNative();
    };
    const here: IceCandidate[] = [];
    const there: IceCandidate[] = [];
    let greeted = false;
    /**
     * Candidates wait for the hello of this end; the client's for the agent's as well: were the agent to reach it
     * before, DTLS could begin in the module's threads before there is a fingerprint to compare, and fail.
     */
    const unsaid: IceMessage[] = [];
    let hello: IceMessage | undefined;
    let settled = false;

    const settle = () => {
      settled = true;
      clearTimeout(timer);
      options.signal.removeEventListener('abort', abort);
      stream.off('data', heard);
      stream.off('close', left);
      stream.resume();
    };
    const fail = (error: TunnelError) => {
      if (settled) return;
      settle();
      release();
      reject(error);
    };
    const abort = () => fail(new TunnelError('session-aborted'));
    const none = () =>
      fail(
        new TunnelError(
          'path-unreachable',
          `no way from ${addressesOf(here, options.stun)} to ${addressesOf(there)}`,
        ),
      );
    const timer = setTimeout(none, options.timeoutMs);
    options.signal.addEventListener('abort', abort, { once: true });

    const say = (message: IceMessage) => {
      if (!settled && stream.writable) stream.write(formatIce(message));
    };
    const sayAll = () => {
      if (!hello || (role === 'offer' && !greeted)) return;
      for (const message of unsaid.splice(0)) say(message);
    };
    peer.onLocalDescription((sdp) => {
      if (hello) return;
      hello = helloOf(sdp) ?? undefined;
      if (!hello) return fail(new TunnelError('path-unavailable', 'ICE says nothing of itself'));
      say(hello);
      sayAll();
    });
    peer.onLocalCandidate((candidate) => {
      const parsed = parseCandidate(candidate);
      // Link-local ones are of no use to anybody.
      if (!parsed) return;
      here.push(parsed);
      unsaid.push({ what: 'candidate', candidate });
      sayAll();
    });
    peer.onGatheringStateChange((state) => {
      if (state === 'complete') unsaid.push({ what: 'all' });
      sayAll();
    });
    peer.onStateChange((state) => {
      if (state === 'failed') none();
    });

    const take = (message: IceMessage) => {
      if (settled) return;
      if (message.what === 'hello' && !greeted) {
        greeted = true;
        const other = role === 'offer' ? 'answer' : 'offer';
        peer.setRemoteDescription(describe(message, other), other);
        sayAll();
      } else if (message.what === 'candidate' && greeted) {
        there.push(parseCandidate(message.candidate)!);
        peer.addRemoteCandidate(message.candidate, '0');
      } else if (message.what !== 'all') {
        throw new Error('out of order');
      }
    };
    const read = makeIceReader(take);
    const heard = (chunk: Buffer | string) => {
      let good = false;
      try {
        good = read(chunk.toString());
      } catch {
        // The native module makes nothing of it.
      }
      if (!good) fail(new TunnelError('path-unreachable', 'the other end says what is no ICE'));
    };
    const left = () => fail(new TunnelError('path-unreachable', 'the other end has given up'));

    const made = (channel: DataChannel) => {
      if (settled) return channel.close();
      settle();
      const remote = peer.getSelectedCandidatePair()?.remote;
      const via = remote ? formatAddress(remote.address, remote.port) : 'unknown';
      resolve(makeUdpPath(peer, channel, release, { ...options, via }));
    };
    stream.on('data', heard);
    stream.once('close', left);
    if (role === 'offer') {
      const channel = peer.createDataChannel('cde');
      channel.onOpen(() => made(channel));
    } else {
      peer.onDataChannel(made);
    }
  });
}

function addressesOf(candidates: readonly IceCandidate[], stun?: string): string {
  if (candidates.length === 0) return 'no address';
  const all = candidates.map(({ address, type }) => (type === 'host' ? address : `${address} (by STUN)`));
  const seen = candidates.some(({ type }) => type !== 'host');
  return `${[...new Set(all)].join(', ')}${stun && !seen ? ` (STUN at ${stun} does not answer)` : ''}`;
}

/** A path over an open channel. `release` frees all that is behind it. */
function makeUdpPath(
  peer: PeerConnection,
  channel: DataChannel,
  release: () => void,
  options: DirectTimes & { via: string },
): Path {
  let events: PathEvents | undefined;
  let closing = false;
  let ended: { error: TunnelError | null } | undefined;
  let paused = false;
  let waiting = false;
  let unread: Buffer[] = [];
  let unreadBytes = 0;
  let closeTimer: NodeJS.Timeout | undefined;

  const end = (error: TunnelError | null) => {
    if (ended) return;
    ended = { error };
    clearTimeout(closeTimer);
    life.stop();
    release();
    deliver();
    events?.closed(error);
  };
  const lost = (why: string) => end(closing ? null : new TunnelError('path-lost', why));
  // Below, libdatachannel keeps the NATs' mappings, of which some are gone after 30 s, and asks for the other end's consent
  // (RFC 7675) by itself, whatever we send: with SCTP's own heartbeats some 17 datagrams of each end in 30 s at rest, as
  // measured, and there is no setting for it. Our own beats come no oftener than on other paths.
  const life = watchLiveness({
    ...options,
    idle: () => !closing && channel.isOpen() && channel.bufferedAmount() === 0,
    beat: (frame) => put(frame),
    lost,
  });

  /** Its own failure is told by its events. */
  function put(chunk: Buffer): void {
    try {
      channel.sendMessageBinary(chunk);
    } catch (error) {
      lost((error as Error).message);
    }
  }

  function deliver(): void {
    while (events && !paused && unread.length > 0) {
      const chunks = unread;
      unread = [];
      unreadBytes = 0;
      for (const [i, chunk] of chunks.entries()) {
        // The reader may rest, or leave, with each of them.
        if (paused) {
          unread = [...chunks.slice(i), ...unread];
          unreadBytes = unread.reduce((sum, { length }) => sum + length, 0);
          return;
        }
        if (!closing) events.data(chunk);
      }
    }
  }

  channel.setBufferedAmountLowThreshold(sendLow);
  channel.onBufferedAmountLow(() => {
    if (!waiting || ended) return;
    waiting = false;
    events?.drain();
  });
  channel.onMessage((message) => {
    if (ended) return;
    const chunk = Buffer.isBuffer(message) ? message : Buffer.from(message as string);
    life.heard(chunk);
    if (closing) return;
    unread.push(chunk);
    unreadBytes += chunk.length;
    if (unreadBytes > maxUnreadBytes) return lost('the other end does not wait for this one to read');
    deliver();
  });
  channel.onError((why) => lost(why));
  channel.onClosed(() => lost('the other end has closed it'));
  peer.onStateChange((state) => {
    if (state === 'failed' || state === 'disconnected') lost('the other end is not reached any more');
    else if (state === 'closed') lost('it is closed');
  });

  return {
    kind: 'direct-udp',
    via: options.via,
    start(handlers) {
      events = handlers;
      deliver();
      if (ended) events.closed(ended.error);
    },
    send(chunk) {
      if (ended || closing || !channel.isOpen()) return true;
      life.sent();
      put(chunk);
      waiting = !ended && channel.bufferedAmount() >= sendHigh;
      return !waiting;
    },
    pause() {
      paused = true;
      life.pause(true);
    },
    resume() {
      if (!paused) return;
      paused = false;
      life.pause(false);
      deliver();
    },
    close() {
      if (closing || ended) return;
      closing = true;
      unread = [];
      // What was sent goes first; then the other end agrees.
      channel.close();
      closeTimer = setTimeout(() => end(null), closeTimeoutMs);
    },
  };
}
