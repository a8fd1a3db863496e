import { noAttributes } from './attributes.ts';
import { field, makePacket, packetTypes, statusCodes } from './packets.ts';

/** A status reply. */
export function status(id: number, code: number, message: string): Buffer {
  return makePacket(
    packetTypes.status,
    field.uint32(id),
    field.uint32(code),
    field.bytes(message),
    field.bytes(''),
  );
}

export function ok(id: number): Buffer {
  return status(id, statusCodes.ok, 'Success');
}

/** Thrown by a handler to respond with this status. */
export class SftpError extends Error {
  code: number;
  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

/** A name reply with a single name. */
export function oneName(id: number, name: Buffer): Buffer {
  return makePacket(
    packetTypes.name,
    field.uint32(id),
    field.uint32(1),
    field.bytes(name),
    field.bytes(name),
    noAttributes,
  );
}
