import { constants } from 'node:fs';
import {
  chmod,
  chown,
  lstat,
  mkdir,
  open,
  readdir,
  readlink,
  rmdir,
  stat,
  symlink,
  truncate,
  unlink,
  utimes,
} from 'node:fs/promises';
import { longName, noAttributes, readAttributes, writeAttributes } from './attributes.ts';
import { type SftpContext, takeFile, takePath } from './context.ts';
import { extensions } from './extensions.ts';
import { change, writeAll } from './files.ts';
import { maxHandles } from './handles.ts';
import {
  field,
  makePacket,
  maxPacket,
  packetOverhead,
  packetTypes,
  type Reader,
  statusCodes,
} from './packets.ts';
import { joinPath, realPath, renameWithoutReplacing } from './paths.ts';
import { ok, oneName, SftpError } from './replies.ts';

type Handler = (id: number, reader: Reader, context: SftpContext) => Promise<Buffer>;

/** Handles a request. Rejects with a file system error or SftpError, which is sent as a status. */
export function handleRequest(
  type: number,
  id: number,
  reader: Reader,
  context: SftpContext,
): Promise<Buffer> {
  const handler = handlers[type];
  if (!handler) throw new SftpError(statusCodes.unsupported, 'Operation unsupported');
  return handler(id, reader, context);
}

/** Names per readdir reply; they fill about a quarter of a packet. */
const namesAtOnce = 100;

const openFlags = { read: 1, write: 2, append: 4, create: 8, truncate: 16, exclusive: 32 };

const handlers: Record<number, Handler> = {
  async [packetTypes.open](id, reader, context) {
    const path = takePath(reader, context);
    const wanted = reader.uint32();
    const { mode } = readAttributes(reader);
    if (context.handles.full()) {
      throw new SftpError(statusCodes.failure, `More than ${maxHandles} files are open`);
    }
    const writes = (wanted & openFlags.write) !== 0;
    const append = (wanted & openFlags.append) !== 0;
    let flags = writes || append ? (wanted & openFlags.read ? constants.O_RDWR : constants.O_WRONLY) : 0;
    if (append) flags |= constants.O_APPEND;
    if (wanted & openFlags.create) flags |= constants.O_CREAT;
    if (wanted & openFlags.truncate) flags |= constants.O_TRUNC;
    if (wanted & openFlags.exclusive) flags |= constants.O_EXCL;
    const file = await open(path, flags, mode === undefined ? 0o666 : mode & 0o7777);
    return makePacket(
      packetTypes.handle,
      field.uint32(id),
      field.bytes(context.handles.add({ kind: 'file', file, append })),
    );
  },

  async [packetTypes.close](id, reader, context) {
    if (!(await context.handles.close(reader.bytes()))) {
      throw new SftpError(statusCodes.noSuchFile, 'No such file');
    }
    return ok(id);
  },

  async [packetTypes.read](id, reader, context) {
    const { file } = takeFile(reader, context);
    const position = reader.uint64();
    const length = Math.min(reader.uint32(), maxPacket - packetOverhead);
    // The reply's header and data share a buffer, which saves a copy.
    const head = 13;
    const packet = Buffer.allocUnsafe(head + length);
    const { bytesRead } = await file.read(packet, head, length, position);
    if (bytesRead === 0 && length > 0) throw new SftpError(statusCodes.eof, 'End of file');
    context.onTransfer();
    packet.writeUInt32BE(head - 4 + bytesRead, 0);
    packet[4] = packetTypes.data;
    packet.writeUInt32BE(id, 5);
    packet.writeUInt32BE(bytesRead, 9);
    return packet.subarray(0, head + bytesRead);
  },

  async [packetTypes.write](id, reader, context) {
    const entry = takeFile(reader, context);
    const position = reader.uint64();
    context.onTransfer();
    await writeAll(entry, reader.bytes(), position);
    return ok(id);
  },

  async [packetTypes.lstat](id, reader, context) {
    return attributes(id, await lstat(takePath(reader, context), { bigint: true }));
  },
  async [packetTypes.stat](id, reader, context) {
    return attributes(id, await stat(takePath(reader, context), { bigint: true }));
  },
  async [packetTypes.fstat](id, reader, context) {
    const { file } = takeFile(reader, context);
    return attributes(id, await file.stat({ bigint: true }));
  },

  async [packetTypes.setstat](id, reader, context) {
    const path = takePath(reader, context);
    await change(readAttributes(reader), {
      truncate: (size) => truncate(path, size),
      chmod: (mode) => chmod(path, mode),
      utimes: (accessed, modified) => utimes(path, accessed, modified),
      chown: (uid, gid) => chown(path, uid, gid),
    });
    return ok(id);
  },
  async [packetTypes.fsetstat](id, reader, context) {
    const { file } = takeFile(reader, context);
    await change(readAttributes(reader), file);
    return ok(id);
  },

  async [packetTypes.opendir](id, reader, context) {
    const path = takePath(reader, context);
    if (context.handles.full()) {
      throw new SftpError(statusCodes.failure, `More than ${maxHandles} files are open`);
    }
    const names = await readdir(path, { encoding: 'buffer' });
    names.unshift(Buffer.from('.'), Buffer.from('..'));
    return makePacket(
      packetTypes.handle,
      field.uint32(id),
      field.bytes(context.handles.add({ kind: 'folder', path, names })),
    );
  },

  async [packetTypes.readdir](id, reader, context) {
    const entry = context.handles.get(reader.bytes());
    if (entry?.kind !== 'folder') throw new SftpError(statusCodes.noSuchFile, 'No such file');
    if (entry.names.length === 0) throw new SftpError(statusCodes.eof, 'End of file');
    const names = entry.names.splice(0, namesAtOnce);
    const accounts = await context.accounts();
    const described = await Promise.all(
      names.map(async (name) => {
        try {
          const stats = await lstat(joinPath(entry.path, name), { bigint: true });
          return [field.bytes(name), field.bytes(longName(name, stats, accounts)), writeAttributes(stats)];
        } catch {
          // Removed meanwhile, or not readable: only the name, as OpenSSH does.
          return [field.bytes(name), field.bytes(name), noAttributes];
        }
      }),
    );
    return makePacket(
      packetTypes.name,
      field.uint32(id),
      field.uint32(described.length),
      ...described.flat(),
    );
  },

  async [packetTypes.remove](id, reader, context) {
    await unlink(takePath(reader, context));
    return ok(id);
  },
  async [packetTypes.mkdir](id, reader, context) {
    const path = takePath(reader, context);
    const { mode } = readAttributes(reader);
    await mkdir(path, mode === undefined ? 0o777 : mode & 0o7777);
    return ok(id);
  },
  async [packetTypes.rmdir](id, reader, context) {
    await rmdir(takePath(reader, context));
    return ok(id);
  },
  async [packetTypes.realpath](id, reader, context) {
    return oneName(id, await realPath(takePath(reader, context)));
  },
  async [packetTypes.rename](id, reader, context) {
    const from = takePath(reader, context);
    await renameWithoutReplacing(from, takePath(reader, context));
    return ok(id);
  },
  async [packetTypes.readlink](id, reader, context) {
    return oneName(id, await readlink(takePath(reader, context), 'buffer'));
  },
  async [packetTypes.symlink](id, reader, context) {
    // The target comes first, contrary to the draft, as in OpenSSH and all clients that follow it.
    const target = reader.bytes();
    await symlink(target, takePath(reader, context));
    return ok(id);
  },

  async [packetTypes.extended](id, reader, context) {
    const extension = extensions[reader.text()];
    if (!extension) throw new SftpError(statusCodes.unsupported, 'Operation unsupported');
    return extension.handle(id, reader, context);
  },
};

function attributes(id: number, stats: Parameters<typeof writeAttributes>[0]): Buffer {
  return makePacket(packetTypes.attrs, field.uint32(id), writeAttributes(stats));
}
