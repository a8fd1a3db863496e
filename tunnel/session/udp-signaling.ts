import type { ClientHttp2Session } from 'node:http2';
import { awaitResponse, icePath } from '../auth/handshake.ts';
import type { TicketSatellite } from '../auth/ticket-holder.ts';
import { loadNative } from '../paths/datachannel.ts';
import { connectUdp, type UdpOptions } from '../paths/direct-udp.ts';
import type { Pipe } from '../pipe/pipe.ts';
import type { FindUdpPath } from '../selection/udp-candidate.ts';

/** Time for both ends to exchange candidates and run connectivity checks. */
const defaultTimeoutMs = 10_000;

/** Picks a satellite's STUN server, nearest first and another one at each attempt. */
export function pickStunServer(satellites: readonly TicketSatellite[], attempt: number): string | undefined {
  const all = satellites.flatMap(({ stun }) => stun ?? []);
  return all[attempt % all.length];
}

/** The client's side of finding a UDP path: signals with the agent inside the session, over its current path. */
export function makeUdpFinder(
  options: Partial<UdpOptions> & {
    h2: ClientHttp2Session;
    pipe: Pipe;
    tickets: { readonly satellites: readonly TicketSatellite[] };
  },
): FindUdpPath {
  const { h2, pipe, tickets } = options;
  let attempts = 0;
  return async (signal) => {
    // Throws if this machine has no native module, before the agent is involved.
    loadNative();
    const stream = h2.request({ ':method': 'POST', ':path': icePath });
    try {
      await awaitResponse(stream);
      stream.on('error', () => {});
      const near = ({ url }: TicketSatellite) => Number(url !== pipe.path.via);
      const satellites = [...tickets.satellites].sort((one, other) => near(one) - near(other));
      const path = await connectUdp('offer', stream, {
        ...options,
        stun: pickStunServer(satellites, attempts++),
        timeoutMs: options.timeoutMs ?? defaultTimeoutMs,
        signal,
      });
      stream.end();
      return path;
    } catch (error) {
      stream.close();
      throw error;
    }
  };
}
