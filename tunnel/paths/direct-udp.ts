import type { Duplex } from 'node:stream';
import { formatAddress } from '@cde/api/host-port.ts';
import { TunnelError } from '../errors.ts';
import type { Path, PathEvents } from '../pipe/path.ts';
import { type DataChannel, loadNative, nativeUnused, type PeerConnection } from './datachannel.ts';
import { describe, formatIce, type IceCandidate } from './ice.ts';
import { makeIceExchange } from './ice-exchange.ts';
import { type DirectTimes, watchLiveness } from './liveness.ts';
import { countUdpBytes } from './udp-traffic.ts';

/** Low on purpose, as for the other paths: buffered data is sent before any keystroke that follows. */
const sendHigh = 256 * 1024;
const sendLow = 64 * 1024;
/** Maximum unread data of a paused reader. The peer's pipe stops at half of that. */
const maxUnreadBytes = 8 * 1024 * 1024;
/** How long the peer may take to confirm the close. */
const closeTimeoutMs = 3_000;

export interface UdpOptions extends DirectTimes {
  /** HOST:PORT of a STUN server. Without one, no path through a NAT is found. */
  stun?: string | undefined;
  /** Use only the interface with this address. */
  bindAddress?: string | undefined;
  timeoutMs: number;
  signal: AbortSignal;
}

let open = 0;
/** The number of direct-udp paths and attempts in this process, which share its descriptors and threads. */
export const udpCount = (): number => open;

/**
 * Finds a path by UDP together with the peer, which runs the same in the other role; the client offers. They signal over
 * `stream`, inside the session; the end that opened it closes it. Rejects with `path-unreachable`, or with
 * `path-unsupported` if the native module does not load, after releasing all resources.
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
      if (open === 0) nativeUnused();
    };
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
          `no path from ${addressesOf(exchange.here, options.stun)} to ${addressesOf(exchange.there)}`,
        ),
      );
    const timer = setTimeout(none, options.timeoutMs);
    options.signal.addEventListener('abort', abort, { once: true });

    const exchange = makeIceExchange(role, {
      send(message) {
        if (!settled && stream.writable) stream.write(formatIce(message));
      },
      onHello(message) {
        const other = role === 'offer' ? 'answer' : 'offer';
        if (!settled) peer.setRemoteDescription(describe(message, other), other);
      },
      onCandidate(candidate) {
        if (!settled) peer.addRemoteCandidate(candidate, '0');
      },
    });
    peer.onLocalDescription((sdp) => {
      if (!exchange.greet(sdp)) fail(new TunnelError('path-unavailable', 'ICE gave no local description'));
    });
    peer.onLocalCandidate(exchange.found);
    peer.onGatheringStateChange((state) => {
      if (state === 'complete') exchange.foundAll();
    });
    peer.onStateChange((state) => {
      if (state === 'failed') none();
    });

    const heard = (chunk: Buffer | string) => {
      if (!exchange.receive(chunk.toString()))
        fail(new TunnelError('path-unreachable', 'the other end sent invalid ICE messages'));
    };
    const left = () => fail(new TunnelError('path-unreachable', 'the other end gave up'));

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

/** A path over an open channel. `release` frees the resources behind it. */
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
  // libdatachannel keeps NAT mappings alive (some time out after 30 s) and checks consent (RFC 7675) by itself: with
  // SCTP's heartbeats we measured some 17 datagrams from each end per 30 s when idle, and there is no setting for it.
  // Our own beats are no more frequent than on other paths.
  const life = watchLiveness({
    ...options,
    idle: () => !closing && channel.isOpen() && channel.bufferedAmount() === 0,
    beat: (frame) => put(frame),
    lost,
  });

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
        // The reader may pause or close the path at each chunk.
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
    countUdpBytes(chunk.length);
    if (closing) return;
    unread.push(chunk);
    unreadBytes += chunk.length;
    if (unreadBytes > maxUnreadBytes) return lost('the other end ignores backpressure');
    deliver();
  });
  channel.onError((why) => lost(why));
  channel.onClosed(() => lost('the other end closed it'));
  peer.onStateChange((state) => {
    if (state === 'failed' || state === 'disconnected') lost('the other end is no longer reachable');
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
      countUdpBytes(chunk.length);
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
      // Flushes, then waits for the peer to confirm.
      channel.close();
      closeTimer = setTimeout(() => end(null), closeTimeoutMs);
    },
  };
}
