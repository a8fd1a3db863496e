import type { Readable } from 'node:stream';

/** The packet types of SFTP version 3 (draft-ietf-secsh-filexfer-02, section 3). */
export const packetTypes = {
  init: 1,
  version: 2,
  open: 3,
  close: 4,
  read: 5,
  write: 6,
  lstat: 7,
  fstat: 8,
  setstat: 9,
  fsetstat: 10,
  opendir: 11,
  readdir: 12,
  remove: 13,
  mkdir: 14,
  rmdir: 15,
  realpath: 16,
  stat: 17,
  rename: 18,
  readlink: 19,
  symlink: 20,
  status: 101,
  handle: 102,
  data: 103,
  name: 104,
  attrs: 105,
  extended: 200,
  extendedReply: 201,
} as const;

export const statusCodes = {
  ok: 0,
  eof: 1,
  noSuchFile: 2,
  permissionDenied: 3,
  failure: 4,
  badMessage: 5,
  unsupported: 8,
} as const;

/** The maximum packet size in both directions, as of OpenSSH's sftp-server. */
export const maxPacket = 256 * 1024;

/** Room in a packet around the data of a read or write. */
export const packetOverhead = 1024;

/** A packet that breaks the format; the session cannot go on after it. */
export class MalformedPacket extends Error {}

/** Splits a stream into packets, without their length. Backpressure is the reader's pace. */
export async function* readPackets(stream: Readable): AsyncGenerator<Buffer> {
  let buffered: Buffer[] = [];
  let length = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    buffered.push(chunk);
    length += chunk.length;
    while (length >= 4) {
      if (buffered[0]!.length < 4) buffered = [Buffer.concat(buffered)];
      const size = buffered[0]!.readUInt32BE(0);
      if (size === 0 || size > maxPacket) throw new MalformedPacket(`a packet of ${size} bytes`);
      if (length < size + 4) break;
      const all = buffered.length === 1 ? buffered[0]! : Buffer.concat(buffered);
      yield all.subarray(4, size + 4);
      const rest = all.subarray(size + 4);
      buffered = rest.length > 0 ? [rest] : [];
      length = rest.length;
    }
  }
}

/** Reads the fields of a packet in order. Throws MalformedPacket past its end. */
export function makeReader(packet: Buffer, start = 0) {
  let position = start;
  function take(size: number): number {
    const at = position;
    if (at + size > packet.length) throw new MalformedPacket('a packet shorter than its fields');
    position += size;
    return at;
  }
  return {
    byte: () => packet.readUInt8(take(1)),
    uint32: () => packet.readUInt32BE(take(4)),
    /** As a number: exact up to 2^53, which no file reaches. */
    uint64: () => Number(packet.readBigUInt64BE(take(8))),
    bytes() {
      const size = packet.readUInt32BE(take(4));
      const at = take(size);
      return packet.subarray(at, at + size);
    },
    text() {
      return this.bytes().toString('utf8');
    },
    left: () => packet.length - position,
  };
}
export type Reader = ReturnType<typeof makeReader>;

/** The fields of a reply, put together by `makePacket`. */
export const field = {
  byte(value: number): Buffer {
    return Buffer.of(value);
  },
  uint32(value: number): Buffer {
    const buffer = Buffer.allocUnsafe(4);
    buffer.writeUInt32BE(value >>> 0);
    return buffer;
  },
  uint64(value: number | bigint): Buffer {
    const buffer = Buffer.allocUnsafe(8);
    buffer.writeBigUInt64BE(BigInt(value));
    return buffer;
  },
  bytes(value: Buffer | string): Buffer {
    const bytes = typeof value === 'string' ? Buffer.from(value) : value;
    return Buffer.concat([field.uint32(bytes.length), bytes]);
  },
};

/** A whole packet, with its length in front. */
export function makePacket(type: number, ...fields: Buffer[]): Buffer {
  const size = fields.reduce((sum, { length }) => sum + length, 1);
  return Buffer.concat([field.uint32(size), Buffer.of(type), ...fields]);
}
