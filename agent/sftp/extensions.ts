import { lchown, link, lutimes, rename, statfs } from 'node:fs/promises';
import { readAttributes } from './attributes.ts';
import { type SftpContext, takeFile, takePath } from './context.ts';
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
import { realPath, resolvePath } from './paths.ts';
import { ok, oneName, SftpError } from './replies.ts';

const tilde = 0x7e;

interface Extension {
  version: string;
  handle(id: number, reader: Reader, context: SftpContext): Promise<Buffer>;
}

/** The extensions of OpenSSH's PROTOCOL file (section 4), announced to every client. */
export const extensions: Record<string, Extension> = {
  'posix-rename@openssh.com': {
    version: '1',
    async handle(id, reader, context) {
      const from = takePath(reader, context);
      await rename(from, takePath(reader, context));
      return ok(id);
    },
  },
  'hardlink@openssh.com': {
    version: '1',
    async handle(id, reader, context) {
      const existing = takePath(reader, context);
      await link(existing, takePath(reader, context));
      return ok(id);
    },
  },
  'fsync@openssh.com': {
    version: '1',
    async handle(id, reader, context) {
      await takeFile(reader, context).file.sync();
      return ok(id);
    },
  },
  'statvfs@openssh.com': {
    version: '2',
    handle: (id, reader, context) => filesystem(id, takePath(reader, context)),
  },
  'fstatvfs@openssh.com': {
    version: '2',
    handle: (id, reader, context) =>
      // Node has no fstatfs, but on Linux the descriptor's /proc path works.
      filesystem(id, Buffer.from(`/proc/self/fd/${takeFile(reader, context).file.fd}`)),
  },
  'lsetstat@openssh.com': {
    version: '1',
    async handle(id, reader, context) {
      const path = takePath(reader, context);
      const wanted = readAttributes(reader);
      if (wanted.size !== undefined || wanted.mode !== undefined) {
        // Symbolic links have no settable size and, on Linux, no permissions.
        throw new SftpError(statusCodes.unsupported, 'Operation unsupported');
      }
      await change(wanted, {
        utimes: (accessed, modified) => lutimes(path, accessed, modified),
        chown: (uid, gid) => lchown(path, uid, gid),
      });
      return ok(id);
    },
  },
  'limits@openssh.com': {
    version: '1',
    async handle(id) {
      return makePacket(
        packetTypes.extendedReply,
        field.uint32(id),
        field.uint64(maxPacket),
        field.uint64(maxPacket - packetOverhead),
        field.uint64(maxPacket - packetOverhead),
        field.uint64(maxHandles),
      );
    },
  },
  'expand-path@openssh.com': {
    version: '1',
    async handle(id, reader, context) {
      const path = reader.bytes();
      if (path[0] !== tilde) return oneName(id, await realPath(resolvePath(context.home, path)));
      const end = path.includes('/') ? path.indexOf('/') : path.length;
      const home = await homeOf(path.toString('utf8', 1, end), context);
      return oneName(id, await realPath(Buffer.concat([Buffer.from(home), path.subarray(end)])));
    },
  },
  'home-directory': {
    version: '1',
    async handle(id, reader, context) {
      return oneName(id, Buffer.from(await homeOf(reader.text(), context)));
    },
  },
  'users-groups-by-id@openssh.com': {
    version: '1',
    async handle(id, reader, context) {
      const accounts = await context.accounts();
      const names = (ids: Buffer, name: (id: number) => string | undefined) => {
        const found: Buffer[] = [];
        for (let at = 0; at + 4 <= ids.length; at += 4) {
          found.push(field.bytes(name(ids.readUInt32BE(at)) ?? ''));
        }
        return field.bytes(Buffer.concat(found));
      };
      const users = names(reader.bytes(), accounts.user);
      const groups = names(reader.bytes(), accounts.group);
      return makePacket(packetTypes.extendedReply, field.uint32(id), users, groups);
    },
  },
  'copy-data': {
    version: '1',
    async handle(id, reader, context) {
      const from = takeFile(reader, context);
      let position = reader.uint64();
      const length = reader.uint64();
      const to = takeFile(reader, context);
      let target = reader.uint64();
      if (from === to) throw new SftpError(statusCodes.failure, 'A file cannot be copied onto itself');
      // Zero means up to the end of the file.
      let left = length === 0 ? Number.POSITIVE_INFINITY : length;
      const buffer = Buffer.allocUnsafe(256 * 1024);
      while (left > 0) {
        const { bytesRead } = await from.file.read(buffer, 0, Math.min(buffer.length, left), position);
        if (bytesRead === 0) break;
        await writeAll(to, buffer.subarray(0, bytesRead), target);
        position += bytesRead;
        target += bytesRead;
        left -= bytesRead;
      }
      return ok(id);
    },
  },
};

async function homeOf(user: string, context: SftpContext): Promise<string> {
  if (user === '') return context.home;
  const home = (await context.accounts()).home(user);
  if (!home) throw new SftpError(statusCodes.noSuchFile, 'No such user');
  return home;
}

async function filesystem(id: number, path: Buffer): Promise<Buffer> {
  const stats = await statfs(path, { bigint: true });
  const nameMax = 255;
  return makePacket(
    packetTypes.extendedReply,
    field.uint32(id),
    field.uint64(stats.bsize),
    field.uint64(stats.bsize),
    field.uint64(stats.blocks),
    field.uint64(stats.bfree),
    field.uint64(stats.bavail),
    field.uint64(stats.files),
    field.uint64(stats.ffree),
    field.uint64(stats.ffree),
    field.uint64(0),
    field.uint64(0),
    field.uint64(nameMax),
  );
}
