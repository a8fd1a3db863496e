import { createSocket } from 'node:dgram';
import type { Log } from '@cde/tunnel/log.ts';
import { silentLog } from '@cde/tunnel/log.ts';
import { makeProbeResponder } from '@cde/tunnel/netcheck/probe-train.ts';
import { answerBinding } from '@cde/tunnel/netcheck/stun.ts';

export interface StunServer {
  readonly port: number;
  /** Counts since the start. `ignored`: neither STUN nor a probe. `limited`: dropped by a rate limit. */
  stats(): StunStats;
  close(): Promise<void>;
}

export interface StunStats {
  answered: number;
  probes: number;
  ignored: number;
  limited: number;
}

/**
 * Requests per second, per address and in total. ICE sends a few per session and a probe train has 20 packets; more may
 * be sent with a forged source address, which we must not flood with replies.
 */
const maxPerAddress = 50;
const maxTotal = 5_000;
/** Replies waiting in this process because the network does not accept them. */
const maxQueuedReplies = 1_000;

/**
 * A STUN server (RFC 8489, Binding only): tells clients and agents their public addresses, so that they find a direct
 * path through their NATs. Also echoes probe trains (tunnel/netcheck/probe-train.ts). Rejects if it cannot listen.
 */
export async function serveStun(options: {
  host: string;
  port: number;
  log?: Log;
  /** Monotonic milliseconds. */
  now?: () => number;
}): Promise<StunServer> {
  const { log = silentLog, now = () => performance.now() } = options;
  const socket = createSocket({ type: options.host.includes(':') ? 'udp6' : 'udp4' });
  const stats: StunStats = { answered: 0, probes: 0, ignored: 0, limited: 0 };
  let since = now();
  let total = 0;
  const perAddress = new Map<string, number>();

  /** Counts are reset every second, which also bounds the map to `maxTotal` entries. */
  function isTooMany(address: string): boolean {
    const at = now();
    if (at - since >= 1_000) {
      since = at;
      total = 0;
      perAddress.clear();
    }
    if (total >= maxTotal) return true;
    const count = (perAddress.get(address) ?? 0) + 1;
    if (count > maxPerAddress) return true;
    total++;
    perAddress.set(address, count);
    return false;
  }

  const prober = makeProbeResponder(now);
  socket.on('message', (datagram, from) => {
    const binding = answerBinding(datagram, from);
    const answer = binding ?? prober.answer(datagram, from);
    if (!answer) {
      stats.ignored++;
    } else if (isTooMany(from.address) || socket.getSendQueueCount() > maxQueuedReplies) {
      stats.limited++;
    } else {
      stats[binding ? 'answered' : 'probes']++;
      // Errors are ignored: the sender retries.
      socket.send(answer, from.port, from.address, () => {});
    }
  });
  await new Promise<void>((resolve, reject) => {
    socket.once('error', reject);
    socket.bind(options.port, options.host, () => {
      socket.off('error', reject);
      socket.on('error', (error) => log.warn({ error: error.message }, 'stun'));
      resolve();
    });
  });
  const { port } = socket.address();
  let closed: Promise<void> | undefined;
  return {
    port,
    stats: () => ({ ...stats }),
    close() {
      closed ??= new Promise((resolve) => {
        socket.close(resolve);
      });
      return closed;
    },
  };
}
