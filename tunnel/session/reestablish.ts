import { makeLink } from '../pipe/link.ts';
import { makeResumeHandshake, type ResumeHandshake, type ResumeSecret } from '../pipe/resume.ts';
import type { FindUdpPath } from '../selection/udp-candidate.ts';

/** The path was found a moment ago: the agent answers promptly or not at all. */
const responseTimeoutMs = 3_000;

/**
 * Finds a new UDP path for a session that may only use UDP and has lost its path. It has nothing left to signal over,
 * so a second, short-lived session through a satellite does that.
 */
export async function reestablishUdp(
  helper: { findUdpPath: FindUdpPath; close(): void },
  secret: ResumeSecret,
  signal: AbortSignal,
): Promise<ResumeHandshake> {
  try {
    const path = await helper.findUdpPath(signal);
    const handshake = makeResumeHandshake(makeLink(path), secret, { timeoutMs: responseTimeoutMs, signal });
    return {
      ...handshake,
      // Once the agent has answered it knows the path, and the helper is no longer needed.
      request: (position) => handshake.request(position).finally(() => helper.close()),
      drop() {
        helper.close();
        handshake.drop();
      },
    };
  } catch (error) {
    helper.close();
    throw error;
  }
}
