import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';

/**
 * Probe trains: small datagrams that a satellite echoes, to measure loss and jitter. They share a port with STUN, whose
 * datagrams begin with two zero bits; ours begin with `cdeP`. All have the same length, so spoofed requests gain no
 * amplification, and echoes require a cookie that proves that the sender receives at its address.
 *
 *     0 magic (4)  4 type (1)  5 zero (1)  6 number (2)  8 nonce (8)  16 cookie (16)  32 zeros (32)
 */

export const probeBytes = 64;
const magic = Buffer.from('cdeP');
const cookieBytes = 16;
const types = { hello: 1, cookie: 2, probe: 3, echo: 4 } as const;
/** A cookie is valid for one to two of these periods; a train takes a second. */
const cookieMs = 30_000;

export interface RemoteEndpoint {
  address: string;
  port: number;
}

/**
 * The satellite's side, stateless. `answer` returns the response to a datagram; null if it is not a request, or if its
 * cookie was not recently issued to this address by this process.
 */
export function makeProbeResponder(now: () => number = () => performance.now()): {
  answer(datagram: Buffer, from: RemoteEndpoint): Buffer | null;
} {
  const secret = randomBytes(32);
  const cookieOf = (nonce: Buffer, { address, port }: RemoteEndpoint, slot: number) =>
    createHmac('sha256', secret)
      .update(`${slot} ${port} ${address} `)
      .update(nonce)
      .digest()
      .subarray(0, cookieBytes);
  return {
    answer(datagram, from) {
      const asked = read(datagram);
      if (!asked || (asked.type !== types.hello && asked.type !== types.probe)) return null;
      const slot = Math.floor(now() / cookieMs);
      if (asked.type === types.hello)
        return write(types.cookie, asked.number, asked.nonce, cookieOf(asked.nonce, from, slot));
      const good = [slot, slot - 1].some((each) =>
        timingSafeEqual(cookieOf(asked.nonce, from, each), asked.cookie),
      );
      return good ? write(types.echo, asked.number, asked.nonce, asked.cookie) : null;
    },
  };
}

/** The client's side of one train. */
export function makeProbeClient(): {
  hello(): Buffer;
  /** Returns the cookie from the response to the hello; null for other datagrams. */
  readCookie(datagram: Buffer): Buffer | null;
  /** `number` from 0 to 65,535. */
  probe(number: number, cookie: Buffer): Buffer;
  /** Returns the number of the echoed probe; null for other datagrams. */
  readEcho(datagram: Buffer): number | null;
} {
  const nonce = randomBytes(8);
  const mine = (datagram: Buffer, type: number) => {
    const heard = read(datagram);
    return heard?.type === type && heard.nonce.equals(nonce) ? heard : null;
  };
  return {
    hello: () => write(types.hello, 0, nonce, Buffer.alloc(cookieBytes)),
    readCookie: (datagram) => mine(datagram, types.cookie)?.cookie ?? null,
    probe: (number, cookie) => write(types.probe, number, nonce, cookie),
    readEcho: (datagram) => mine(datagram, types.echo)?.number ?? null,
  };
}

interface Packet {
  type: number;
  number: number;
  nonce: Buffer;
  cookie: Buffer;
}

function read(datagram: Buffer): Packet | null {
  if (datagram.length !== probeBytes || !datagram.subarray(0, 4).equals(magic)) return null;
  return {
    type: datagram[4]!,
    number: datagram.readUInt16BE(6),
    nonce: datagram.subarray(8, 16),
    cookie: datagram.subarray(16, 32),
  };
}

function write(type: number, number: number, nonce: Buffer, cookie: Buffer): Buffer {
  const packet = Buffer.alloc(probeBytes);
  magic.copy(packet);
  packet[4] = type;
  packet.writeUInt16BE(number, 6);
  nonce.copy(packet, 8);
  cookie.copy(packet, 16);
  return packet;
}
