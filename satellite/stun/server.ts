import { createSocket } from 'node:dgram';
import type { Log } from '@cde/tunnel/log.ts';
import { silentLog } from '@cde/tunnel/log.ts';
import { makeProbeResponder } from '@cde/tunnel/netcheck/probe-train.ts';
import { answerBinding } from '@cde/tunnel/netcheck/stun.ts';

export interface StunServer {
  readonly port: number;
  /** Since the start, with those of probe trains. `ignored`: neither. `limited`: too many at once, of one address or in all. */
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
 * In a second, from one address and in all: ICE asks a few times for each session, and a probe train has 20. Who asks
 * more often may be asking in the name of a third, whom we must not flood with answers.
 */
const maxPerAddress = 50;
const maxTotal = 5_000;
/** Answers that wait in this process: the network does not take them. */
const maxQueuedReplies = 1_000;

/**
 * Tells clients and agents, over UDP, by which address they are seen (a STUN server, RFC 8489, Binding only), so
 * that they find a direct path through their NATs; and sends probe trains back (tunnel/netcheck/probe-train.ts). Rejects with the error of listening.
 */
export async function serveStun(options: {
  host: string;
  port: number;
  log?: Log;
  /** Milliseconds that only go forward. */
  now?: () => number;
}): Promise<StunServer> {
  const { log = silentLog, now = () => performance.now() } = options;
  const socket = createSocket({ type: options.host.includes(':') ? 'udp6' : 'udp4' });
  const stats: StunStats = { answered: 0, probes: 0, ignored: 0, limited: 0 };
  let since = now();
  let total = 0;
  const perAddress = new Map<string, number>();

  /** Counts by whole seconds: the map lives no longer than one, and holds no more than `mostInAll`. */
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
      // Nobody to tell: who asked asks again.
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
