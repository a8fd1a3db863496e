import { isIP } from 'node:net';
import { isForbiddenAddress } from '../network/addresses.ts';

/**
 * Signaling between client and agent, inside the session, to find a path by UDP (ICE, RFC 8445): one JSON object per
 * line. No SDP is exchanged; each field is validated and the description is built locally.
 */
export type IceMessage =
  | {
      what: 'hello';
      /** ICE credentials. */
      ufrag: string;
      pwd: string;
      /** SHA-256 of the DTLS certificate, in SDP notation. */
      fingerprint: string;
    }
  | { what: 'candidate'; candidate: string }
  /** End of candidates. */
  | { what: 'all' };

const maxLineLength = 1024;
/** Per end and attempt. A machine with more addresses does without the rest. */
const maxMessages = 40;

const fields = {
  ufrag: /^[A-Za-z0-9+/]{4,256}$/,
  pwd: /^[A-Za-z0-9+/]{22,256}$/,
  fingerprint: /^[0-9A-F]{2}(:[0-9A-F]{2}){31}$/,
} as const;

export const formatIce = (message: IceMessage): string => `${JSON.stringify(message)}\n`;

/** Parses a line; null if it is invalid. */
export function parseIce(line: string): IceMessage | null {
  let value: Record<string, unknown>;
  try {
    value = JSON.parse(line);
  } catch {
    return null;
  }
  const { what, ufrag, pwd, fingerprint, candidate } = value ?? {};
  if (what === 'all') return { what };
  if (what === 'candidate') {
    const good = typeof candidate === 'string' && parseCandidate(candidate);
    return good ? { what, candidate: formatCandidate(good) } : null;
  }
  if (what !== 'hello') return null;
  const all = { ufrag, pwd, fingerprint } as Record<keyof typeof fields, unknown>;
  for (const [name, pattern] of Object.entries(fields)) {
    const field = all[name as keyof typeof fields];
    if (typeof field !== 'string' || !pattern.test(field)) return null;
  }
  return { what, ...(all as Record<keyof typeof fields, string>) };
}

/** Splits the peer's data into messages. The reader returns false after an invalid message, or after too many. */
export function makeIceReader(onMessage: (message: IceMessage) => void): (chunk: string) => boolean {
  let rest = '';
  let count = 0;
  return (chunk) => {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop()!;
    for (const line of lines) {
      const message = line.length <= maxLineLength && ++count <= maxMessages ? parseIce(line) : null;
      if (!message) return false;
      onMessage(message);
    }
    return rest.length <= maxLineLength;
  };
}

export interface IceCandidate {
  foundation: string;
  priority: number;
  address: string;
  port: number;
  type: 'host' | 'srflx' | 'prflx';
}

const candidatePattern =
  /^(?:a=)?candidate:([A-Za-z0-9+/]{1,32}) 1 UDP (\d{1,10}) ([0-9A-Fa-f:.]{2,45}) (\d{1,5}) typ (host|srflx|prflx)(?: |$)/i;

/**
 * Parses an SDP candidate line. Returns null if it is invalid or not acceptable: host names (which would have to be
 * resolved), TCP, and link-local addresses (cloud metadata services).
 */
export function parseCandidate(text: string): IceCandidate | null {
  const match = candidatePattern.exec(text);
  if (!match) return null;
  const [, foundation, priority, address, port, type] = match as unknown as string[];
  const good = isIP(address!) !== 0 && Number(port) >= 1 && Number(port) <= 65535;
  if (!good || Number(priority) > 0xffffffff) return null;
  if (isForbiddenAddress(address!)) return null;
  return {
    foundation: foundation!,
    priority: Number(priority),
    address: address!,
    port: Number(port),
    type: type!.toLowerCase() as IceCandidate['type'],
  };
}

export function formatCandidate({ foundation, priority, address, port, type }: IceCandidate): string {
  const related = type === 'host' ? '' : ` raddr ${address.includes(':') ? '::' : '0.0.0.0'} rport 0`;
  return `candidate:${foundation} 1 UDP ${priority} ${address} ${port} typ ${type}${related}`;
}

/** Extracts the hello from this end's SDP description; null if something is missing. */
export function helloOf(sdp: string): Extract<IceMessage, { what: 'hello' }> | null {
  const [, ufrag] = /^a=ice-ufrag:(\S+)\s*$/m.exec(sdp) ?? [];
  const [, pwd] = /^a=ice-pwd:(\S+)\s*$/m.exec(sdp) ?? [];
  const [, fingerprint] = /^a=fingerprint:sha-256 (\S+)\s*$/im.exec(sdp) ?? [];
  const hello = parseIce(
    JSON.stringify({ what: 'hello', ufrag, pwd, fingerprint: fingerprint?.toUpperCase() }),
  );
  return hello?.what === 'hello' ? hello : null;
}

/**
 * Builds the peer's SDP description: a single data channel. The client, which offers, initiates DTLS: the agent's ICE
 * completes slightly earlier, so a DTLS hello of its would be lost and repeated only after a second.
 */
export function describe(
  { ufrag, pwd, fingerprint }: Extract<IceMessage, { what: 'hello' }>,
  of: 'offer' | 'answer',
): string {
  return `${[
    'v=0',
    'o=cde 1 1 IN IP4 0.0.0.0',
    's=-',
    't=0 0',
    'a=group:BUNDLE 0',
    'a=ice-options:ice2,trickle',
    `a=fingerprint:sha-256 ${fingerprint}`,
    'm=application 9 UDP/DTLS/SCTP webrtc-datachannel',
    'c=IN IP4 0.0.0.0',
    'a=mid:0',
    'a=sendrecv',
    'a=sctp-port:5000',
    'a=max-message-size:262144',
    `a=setup:${of === 'offer' ? 'active' : 'passive'}`,
    `a=ice-ufrag:${ufrag}`,
    `a=ice-pwd:${pwd}`,
  ].join('\r\n')}\r\n`;
}
