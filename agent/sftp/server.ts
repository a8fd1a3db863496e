import type { Duplex } from 'node:stream';
import { systemErrorReason } from '@cde/api/system-errors.ts';
import { type Accounts, readAccounts } from './attributes.ts';
import type { SftpContext } from './context.ts';
import { extensions } from './extensions.ts';
import { makeHandles } from './handles.ts';
import {
  field,
  MalformedPacket,
  makePacket,
  makeReader,
  packetTypes,
  readPackets,
  statusCodes,
} from './packets.ts';
import { SftpError, status } from './replies.ts';
import { handleRequest } from './requests.ts';

/**
 * Serves SFTP version 3 on a channel until the client closes it. ssh2's own server has no extensions (no rename over an
 * existing file, so editors and sshfs cannot save safely; no fsync, statvfs or hard links), corrupts names that are not
 * UTF-8, and has no backpressure. Requests are handled one at a time, in order, as by OpenSSH's sftp-server, which gives
 * backpressure and keeps appended writes in order.
 */
export async function serveSftp(
  channel: Duplex,
  options: {
    home: string;
    /** Called when file contents are read or written. */
    onTransfer?: () => void;
  },
): Promise<void> {
  const handles = makeHandles();
  let accounts: Promise<Accounts> | undefined;
  const context: SftpContext = {
    home: options.home,
    onTransfer: options.onTransfer ?? (() => {}),
    handles,
    accounts: () => (accounts ??= readAccounts()),
  };
  try {
    for await (const packet of readPackets(channel)) {
      const reply = await answer(packet, context);
      if (channel.writableEnded || channel.destroyed) break;
      if (!channel.write(reply)) await drained(channel);
    }
  } catch (error) {
    // The client sent an invalid packet, or disconnected in the middle of one: the session ends.
    if (!(error instanceof MalformedPacket) && !channel.destroyed) channel.resume();
  } finally {
    await handles.closeAll();
  }
}

function drained(channel: Duplex): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      channel.off('drain', done);
      channel.off('close', done);
      resolve();
    };
    channel.on('drain', done);
    channel.on('close', done);
  });
}

async function answer(packet: Buffer, context: SftpContext): Promise<Buffer> {
  const reader = makeReader(packet);
  const type = reader.byte();
  if (type === packetTypes.init) {
    const announced = Object.entries(extensions).flatMap(([name, { version }]) => [
      field.bytes(name),
      field.bytes(version),
    ]);
    return makePacket(packetTypes.version, field.uint32(3), ...announced);
  }
  const id = reader.uint32();
  try {
    return await handleRequest(type, id, reader, context);
  } catch (error) {
    const [code, message] = statusOf(error);
    return status(id, code, message);
  }
}

/** The SFTP status of an error. */
function statusOf(error: unknown): [code: number, message: string] {
  if (error instanceof SftpError) return [error.code, error.message];
  if (error instanceof MalformedPacket) return [statusCodes.badMessage, 'Bad message'];
  const { code, message } = error as NodeJS.ErrnoException;
  switch (code) {
    case 'ENOENT':
    case 'ENOTDIR':
    case 'EBADF':
    case 'ELOOP':
      return [statusCodes.noSuchFile, 'No such file'];
    case 'EPERM':
    case 'EACCES':
    case 'EFAULT':
      return [statusCodes.permissionDenied, 'Permission denied'];
    case 'ENAMETOOLONG':
      return [statusCodes.badMessage, 'File name too long'];
    case 'EINVAL':
      return [statusCodes.badMessage, 'Bad message'];
    case 'ENOSYS':
      return [statusCodes.unsupported, 'Operation unsupported'];
    case 'ENOSPC':
      return [statusCodes.failure, 'No space left on device'];
    case 'EDQUOT':
      return [statusCodes.failure, 'Disk quota exceeded'];
    default:
      return [statusCodes.failure, systemErrorReason(error) ?? (message?.split(',')[0] || 'Failure')];
  }
}
