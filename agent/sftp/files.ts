import type { FileHandle } from 'node:fs/promises';
import type { Attributes } from './attributes.ts';

/** Writes a whole buffer; in append mode the position is ignored. */
export async function writeAll(
  entry: { file: FileHandle; append: boolean },
  data: Buffer,
  position: number,
): Promise<void> {
  let done = 0;
  while (done < data.length) {
    const at = entry.append ? null : position + done;
    const { bytesWritten } = await entry.file.write(data, done, data.length - done, at);
    done += bytesWritten;
  }
}

interface Changes {
  truncate(size: number): Promise<void>;
  chmod(mode: number): Promise<void>;
  utimes(accessed: number, modified: number): Promise<void>;
  chown(uid: number, gid: number): Promise<void>;
}

/** Applies the requested changes in OpenSSH's order. */
export async function change(wanted: Attributes, to: Partial<Changes>): Promise<void> {
  if (wanted.size !== undefined) await to.truncate?.(wanted.size);
  if (wanted.mode !== undefined) await to.chmod?.(wanted.mode & 0o7777);
  if (wanted.times) await to.utimes?.(wanted.times.accessed, wanted.times.modified);
  if (wanted.owner) await to.chown?.(wanted.owner.uid, wanted.owner.gid);
}
