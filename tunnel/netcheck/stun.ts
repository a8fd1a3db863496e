import { isIPv4, isIPv6 } from 'node:net';
import { crc32 } from 'node:zlib';

/**
 * STUN Binding (RFC 8489), server and client: which address and port a request came from. Nothing else of STUN is
 * supported: no credentials, no TCP, no other methods, no clients of RFC 3489.
 */

const headerBytes = 20;
const magicCookie = 0x2112a442;
/** Binding requests have 20 to about 100 bytes; none needs fragmentation. */
const maxRequestBytes = 548;

const types = { request: 0x0001, success: 0x0101, error: 0x0111 } as const;
const attributes = {
  errorCode: 0x0009,
  unknownAttributes: 0x000a,
  xorMappedAddress: 0x0020,
  fingerprint: 0x8028,
} as const;
/** Comprehension-required attributes that a server without credentials can ignore. */
const ignoredAttributes = new Set([0x0006, 0x0008, 0x0014, 0x0015, 0x001c, 0x001d, 0x001e, 0x0024, 0x0025]);
const fingerprintXor = 0x5354554e;
/** Unknown attributes listed in a response, which must not grow beyond its request. */
const maxUnknown = 4;

/**
 * Returns the response to a datagram; null if it is not a well-formed Binding request. A response has at most 24 bytes
 * more than its request, so spoofed requests gain next to no amplification.
 */
export function answerBinding(datagram: Buffer, from: { address: string; port: number }): Buffer | null {
  const request = readRequest(datagram);
  const address = request && addressBytes(from.address);
  if (!request || !address) return null;
  const { transaction, unknown, hasFingerprint } = request;
  const body =
    unknown.length > 0
      ? [
          attribute(attributes.errorCode, Buffer.from([0, 0, 4, 20])),
          attribute(attributes.unknownAttributes, words(unknown.slice(0, maxUnknown))),
        ]
      : [attribute(attributes.xorMappedAddress, xorAddress(address, from.port, transaction))];
  const type = unknown.length > 0 ? types.error : types.success;
  return message(type, transaction, Buffer.concat(body), hasFingerprint);
}

/** Builds a Binding request with a transaction id of 12 bytes. */
export function bindingRequest(transaction: Buffer): Buffer {
  return message(types.request, Buffer.concat([word32(magicCookie), transaction]), Buffer.alloc(0), false);
}

/** Reads the XOR-MAPPED-ADDRESS from the response to that request; null for other datagrams. */
export function readMapped(datagram: Buffer, transaction: Buffer): { address: string; port: number } | null {
  const { length } = datagram;
  if (length < headerBytes || datagram.readUInt16BE(0) !== types.success) return null;
  if (datagram.readUInt16BE(2) !== length - headerBytes || datagram.readUInt32BE(4) !== magicCookie)
    return null;
  if (!datagram.subarray(8, headerBytes).equals(transaction)) return null;
  for (let at = headerBytes; at + 4 <= length; ) {
    const type = datagram.readUInt16BE(at);
    const size = datagram.readUInt16BE(at + 2);
    const value = Buffer.from(datagram.subarray(at + 4, at + 4 + size));
    if (value.length < size) return null;
    if (type === attributes.xorMappedAddress && (size === 8 || size === 20)) {
      for (let i = 0; i < 2; i++) value[2 + i]! ^= datagram[4 + i]!;
      for (let i = 0; i < size - 4; i++) value[4 + i]! ^= datagram[4 + i]!;
      return { address: formatIp(value.subarray(4)), port: value.readUInt16BE(2) };
    }
    at += 4 + size + padding(size);
  }
  return null;
}

function formatIp(bytes: Buffer): string {
  if (bytes.length === 4) return bytes.join('.');
  const groups = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(2 * i).toString(16));
  // The URL parser produces the canonical form.
  return new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1);
}

interface BindingRequest {
  /** Magic cookie and transaction id: the 16 bytes that addresses are XORed with. */
  transaction: Buffer;
  /** Comprehension-required attributes that we do not know. */
  unknown: number[];
  hasFingerprint: boolean;
}

function readRequest(datagram: Buffer): BindingRequest | null {
  const { length } = datagram;
  if (length < headerBytes || length > maxRequestBytes || length % 4 !== 0) return null;
  if (datagram.readUInt16BE(0) !== types.request || datagram.readUInt16BE(2) !== length - headerBytes)
    return null;
  if (datagram.readUInt32BE(4) !== magicCookie) return null;
  const unknown: number[] = [];
  let hasFingerprint = false;
  for (let at = headerBytes; at < length; ) {
    // Nothing may follow the fingerprint, which covers everything before it.
    if (hasFingerprint || at + 4 > length) return null;
    const type = datagram.readUInt16BE(at);
    const size = datagram.readUInt16BE(at + 2);
    const end = at + 4 + size;
    if (end > length) return null;
    if (type === attributes.fingerprint) {
      if (size !== 4 || datagram.readUInt32BE(at + 4) !== fingerprintOf(datagram.subarray(0, at)))
        return null;
      hasFingerprint = true;
    } else if (type < 0x8000 && !ignoredAttributes.has(type)) {
      unknown.push(type);
    }
    at = end + padding(size);
  }
  return { transaction: datagram.subarray(4, headerBytes), unknown, hasFingerprint };
}

function message(type: number, transaction: Buffer, body: Buffer, fingerprint: boolean): Buffer {
  const header = Buffer.alloc(4);
  header.writeUInt16BE(type, 0);
  header.writeUInt16BE(body.length + (fingerprint ? 8 : 0), 2);
  const whole = Buffer.concat([header, transaction, body]);
  if (!fingerprint) return whole;
  return Buffer.concat([whole, attribute(attributes.fingerprint, word32(fingerprintOf(whole)))]);
}

const padding = (size: number) => (4 - (size % 4)) % 4;

function attribute(type: number, value: Buffer): Buffer {
  const head = words([type, value.length]);
  return Buffer.concat([head, value, Buffer.alloc(padding(value.length))]);
}

function words(values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(2 * values.length);
  for (const [i, value] of values.entries()) bytes.writeUInt16BE(value, 2 * i);
  return bytes;
}

function word32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
}

const fingerprintOf = (bytes: Buffer) => (crc32(bytes) ^ fingerprintXor) >>> 0;

/** XOR-MAPPED-ADDRESS, obfuscated against routers that rewrite anything that looks like an address. */
function xorAddress(address: Buffer, port: number, transaction: Buffer): Buffer {
  const value = Buffer.concat([words([address.length === 4 ? 0x01 : 0x02, port]), address]);
  for (let i = 0; i < 2; i++) value[2 + i]! ^= transaction[i]!;
  for (let i = 0; i < address.length; i++) value[4 + i]! ^= transaction[i]!;
  return value;
}

/** The 4 or 16 bytes of an IP address; null if it is none. IPv4-mapped IPv6 counts as IPv4. */
function addressBytes(text: string): Buffer | null {
  const plain = text.replace(/%.*$/, '').replace(/^::ffff:(?=\d+\.)/i, '');
  if (isIPv4(plain)) return Buffer.from(plain.split('.').map(Number));
  if (!isIPv6(plain) || plain.includes('.')) return null;
  const [front = '', back] = plain.split('::');
  const groups = (part: string) =>
    part === '' ? [] : part.split(':').map((each) => Number.parseInt(each, 16));
  const start = groups(front);
  const end = groups(back ?? '');
  return words([...start, ...Array<number>(8 - start.length - end.length).fill(0), ...end]);
}
