import { isIP } from 'node:net';
import { isForbiddenAddress } from '../network/addresses.ts';

/**
 * What client and agent tell each other, inside the session, to find a path by UDP (ICE, RFC 8445): one JSON object
 * a line. No SDP: what comes is checked field by field, and put together anew.
 */
export type IceMessage =
  | {
      what: 'hello';
      /** Of ICE: what the other end's checks are signed with. */
      ufrag: string;
      pwd: string;
      /** SHA-256 of the DTLS certificate, as SDP writes it. */
      fingerprint: string;
    }
  | { what: 'candidate'; candidate: string }
  /** No more candidates follow. */
  | { what: 'all' };

const maxLineLength = 1024;
/** Of one end, in one attempt. A machine with more addresses than this does without the rest. */
const maxMessages = 40;

const fields = {
  ufrag: /^[A-Za-z0-9+/]{4,256}$/,
  pwd: /^[A-Za-z0-9+/]{22,256}$/,
  fingerprint: /^[0-9A-F]{2}(:[0-9A-F]{2}){31}$/,
} as const;

export const formatIce = (message: IceMessage): string => `${JSON.stringify(message)}\n`;

/** A message from a line; null for anything else. */
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

/** Cuts what the other end says into messages. False from the first that is none on, or when there are too many. */
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
 * A candidate from its line in SDP; null where it is none, or of no use: names (that somebody would have to be asked
 * for), TCP, and link-local addresses, at which clouds keep their metadata.
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

/** What an end says of itself, from its own description in SDP; null where something is missing. */
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
 * The other end's description in SDP: one data channel and nothing else. The client, who offers, begins with DTLS: the
 * agent's ICE is done a moment before its own, and what it said then would be lost, and said again after a second.
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
