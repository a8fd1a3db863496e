import { isIPv4, isIPv6 } from 'node:net';
import { crc32 } from 'node:zlib';

/**
 * What a STUN server (RFC 8489) says to a Binding request, and who asks makes of it: from which address and port it came. Nothing else of
 * STUN: no credentials, no TCP, no other method, no clients of RFC 3489.
 */

const headerBytes = 20;
const magicCookie = 0x2112a442;
/** A Binding request is of 20 to some 100 bytes; none needs to be split on its way. */
const maxRequestBytes = 548;

const types = { request: 0x0001, success: 0x0101, error: 0x0111 } as const;
const attributes = {
  errorCode: 0x0009,
  unknownAttributes: 0x000a,
  xorMappedAddress: 0x0020,
  fingerprint: 0x8028,
} as const;
/** What a request may carry that says nothing to a server without credentials. All others below 0x8000 it must understand. */
const ignoredAttributes = new Set([0x0006, 0x0008, 0x0014, 0x0015, 0x001c, 0x001d, 0x001e, 0x0024, 0x0025]);
const fingerprintXor = 0x5354554e;
/** As many as are named in an answer: it must not grow beyond its request. */
const maxUnknown = 4;

/**
 * The answer to a datagram; null for what deserves none: everything that is not a well-formed Binding request. It is
 * never longer than 24 bytes more than the request, so that nobody gains by asking in another's name.
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

/** A Binding request; its transaction is 12 bytes, by which its answer is known. */
export function bindingRequest(transaction: Buffer): Buffer {
  return message(types.request, Buffer.concat([word32(magicCookie), transaction]), Buffer.alloc(0), false);
}

/** The address and port that an answer to that request tells; null of anything else. Reads XOR-MAPPED-ADDRESS alone. */
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
  // As the system writes it: the URL parser knows how.
  return new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1);
}

interface BindingRequest {
  /** Magic cookie and transaction id: the 16 bytes that addresses are hidden with. */
  transaction: Buffer;
  /** Attributes that it demands to be understood, and that are not. */
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
    // The last is not behind a fingerprint: that covers all before it.
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

/** XOR-MAPPED-ADDRESS: hidden from routers that rewrite whatever looks like an address. */
function xorAddress(address: Buffer, port: number, transaction: Buffer): Buffer {
  const value = Buffer.concat([words([address.length === 4 ? 0x01 : 0x02, port]), address]);
  for (let i = 0; i < 2; i++) value[2 + i]! ^= transaction[i]!;
  for (let i = 0; i < address.length; i++) value[4 + i]! ^= transaction[i]!;
  return value;
}

/** The 4 or 16 bytes of an address as the system writes it; null for anything else. An IPv4 one inside IPv6 is IPv4. */
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
