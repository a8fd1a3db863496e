import { createHash } from 'node:crypto';
import { posix } from 'node:path';
import { Failure } from '../failure/failure.ts';
import type { OpenFile, Side, Status } from './side.ts';

/** Size of a piece. `maxPendingPieces` of them fill a link of 100 ms and 1 Gbit/s. */
const pieceBytes = 128 * 1024;
export const maxPendingPieces = 64;
/** Resuming a smaller partial file saves nothing. */
const minResumableBytes = 1024 * 1024;
/** How much of the end of a partial file is compared before a copy resumes. */
const comparedBytes = 256 * 1024;
/** Maximum length of a file name on common systems, in bytes. */
const maxNameBytes = 255;

export interface FileLocation {
  side: Side;
  path: string;
}

export interface CopyOptions {
  /** Preserve the times and all permissions. */
  preserve: boolean;
  signal: AbortSignal;
  /** Called with the number of bytes that were added; `kept` of them are from an earlier attempt. */
  onBytes(count: number, kept: boolean): void;
}

/**
 * Copies one file into a partial file beside the target, which is renamed to the target once it is complete. The next
 * attempt resumes a partial file if the source still has the same size and time.
 */
export async function copyFile(
  from: FileLocation,
  source: Status,
  to: FileLocation,
  options: CopyOptions,
): Promise<void> {
  // Concurrently, because each costs a round trip.
  const looking = to.side.status(to.path);
  looking.catch(() => {});
  const input = await from.side.open(from.path, 'read');
  try {
    const there = await looking;
    if (there?.kind === 'folder')
      throw new Failure('file-failed', `${to.side.label(to.path)} is a folder.`, {
        hint: 'Give the file another name, or move the folder away.',
      });
    if (there?.kind === 'other') return await copyInPlace(from, source, to, input, options);
    // If the target is a link, the file that it leads to is replaced, as if it had been written to.
    const target = there ? await to.side.real(to.path) : to.path;
    const part = posix.join(posix.dirname(target), partName(from, source, posix.basename(target)));
    const mode = safeMode(from, options.preserve ? source.mode : (there?.mode ?? source.mode & 0o777));
    const output = await openPart(to.side, part, source, input);
    let done = output.kept;
    try {
      options.onBytes(done, true);
      await pump(
        from,
        source,
        input,
        source.size > 0 ? sparse(output.file) : output.file,
        done,
        options,
        (count) => {
          done += count;
        },
      );
      // The end may be a hole.
      if (source.size > 0) await output.file.setSize(source.size);
      // The umask applied at creation. A file that replaces another or preserves permissions needs the exact mode.
      if (options.preserve || there) await output.file.setMode(mode);
      if (options.preserve) await output.file.setTimes(source.accessed, source.modified);
      // Only for large files: with many small ones, waiting for the disk would take most of the time.
      if (source.size >= minResumableBytes) await output.file.sync();
      await output.file.close();
    } catch (error) {
      await output.file.close().catch(() => {});
      // On a full disk, a partial file would take the space that the next attempt needs.
      if (done < minResumableBytes || isDiskFull(error)) await to.side.remove(part).catch(() => {});
      throw error;
    }
    await to.side.rename(part, target);
  } finally {
    await input.close().catch(() => {});
  }
}

/** A program from a workspace must not run as its file's owner or as root, on this machine or another. */
export const safeMode = ({ side }: FileLocation, mode: number): number =>
  side.isWorkspace ? mode & 0o777 : mode;

function isDiskFull(error: unknown): boolean {
  const { code, cause, message } = error as NodeJS.ErrnoException;
  if (['ENOSPC', 'EDQUOT', 'EFBIG'].includes(code ?? '')) return true;
  // Errors of a workspace are only text in SFTP.
  return error instanceof Failure && (isDiskFull(cause ?? {}) || /disk (is full|quota)/.test(message));
}

const zeros = Buffer.alloc(pieceBytes);

/** Skips zeros, so that a sparse file stays sparse: unwritten parts of a new file read as zeros. */
function sparse(file: OpenFile): OpenFile {
  const isHole = (data: Buffer) =>
    data.length >= 4096 && data.length <= zeros.length && data.equals(zeros.subarray(0, data.length));
  return { ...file, write: async (data, at) => void (isHole(data) || (await file.write(data, at))) };
}

/** Differs for each source, so that a partial file is never resumed from another one. */
function partName(from: FileLocation, { size, modified }: Status, name: string): string {
  const of = `${from.side.label(from.path)}\0${size}\0${modified}`;
  const end = `.${createHash('sha256').update(of).digest('hex').slice(0, 12)}.cde-part`;
  let start = `.${name}`;
  while (Buffer.byteLength(start + end) > maxNameBytes) start = start.slice(0, -1);
  return start + end;
}

async function openPart(
  side: Side,
  path: string,
  source: Status,
  input: OpenFile,
): Promise<{ file: OpenFile; kept: number }> {
  // Private until it is complete, if the source is.
  const create = async () => ({ file: await side.open(path, 'create', source.mode & 0o777), kept: 0 });
  const part = source.size >= minResumableBytes ? await side.ownFile(path) : null;
  if (part && part.size > 0 && part.size <= source.size) {
    const file = await side.open(path, 'go-on');
    if (await sameEnd(file, input, part.size)) return { file, kept: part.size };
    await file.close();
    await side.remove(path);
  }
  try {
    return await create();
  } catch {
    // Something that is not our partial file must not be written through. If none can be made, this reports why.
    await side.remove(path);
    return create();
  }
}

/** Whether the end of a partial file matches the source: after a power cut it may have its length but not its bytes. */
async function sameEnd(part: OpenFile, source: OpenFile, size: number): Promise<boolean> {
  const from = Math.max(0, size - comparedBytes);
  const [ours, theirs] = await Promise.all([
    readWhole(part, from, size - from),
    readWhole(source, from, size - from),
  ]);
  return ours !== null && theirs !== null && ours.equals(theirs);
}

/** Null if the file ends earlier. */
async function readWhole(file: OpenFile, position: number, length: number): Promise<Buffer | null> {
  const buffer = Buffer.allocUnsafe(length);
  for (let done = 0; done < length; ) {
    const count = await file.read(buffer.subarray(done), position + done);
    if (count === 0) return null;
    done += count;
  }
  return buffer;
}

/** Copies from `start` to the source's size: many pieces concurrently, written in order. */
export async function pump(
  from: FileLocation,
  { size }: Status,
  input: OpenFile,
  output: Pick<OpenFile, 'write'>,
  start: number,
  { signal, onBytes }: CopyOptions,
  written: (count: number) => void,
): Promise<void> {
  const reads: Promise<Buffer | null>[] = [];
  const writes: Promise<void>[] = [];
  const quiet = <T>(promise: Promise<T>) => {
    promise.catch(() => {});
    return promise;
  };
  let asked = start;
  let position = start;
  while (position < size) {
    signal.throwIfAborted();
    for (; asked < size && reads.length < maxPendingPieces; asked += pieceBytes)
      reads.push(quiet(readWhole(input, asked, Math.min(pieceBytes, size - asked))));
    const piece = await reads.shift()!;
    if (!piece)
      throw new Failure('file-changed', `${from.side.label(from.path)} became shorter while it was copied.`, {
        hint: 'Copy it again.',
      });
    const write = output.write(piece, position).then(() => {
      written(piece.length);
      onBytes(piece.length, false);
    });
    position += piece.length;
    writes.push(quiet(write));
    if (writes.length >= maxPendingPieces) await writes.shift();
  }
  for (const write of writes) await write;
  // Files in /proc have the size 0 and content.
  if (size === 0) await readToEnd(input, output, onBytes);
}

async function readToEnd(
  input: OpenFile,
  output: Pick<OpenFile, 'write'>,
  onBytes: CopyOptions['onBytes'],
): Promise<void> {
  const buffer = Buffer.allocUnsafe(pieceBytes);
  for (let position = 0; ; ) {
    const count = await input.read(buffer, position);
    if (count === 0) return;
    await output.write(buffer.subarray(0, count), position);
    position += count;
    onBytes(count, false);
  }
}

/** Devices are written in place: they cannot be replaced by renaming. */
async function copyInPlace(
  from: FileLocation,
  source: Status,
  to: FileLocation,
  input: OpenFile,
  options: CopyOptions,
): Promise<void> {
  const output = await to.side.open(to.path, 'in-place');
  try {
    await pump(from, source, input, output, 0, options, () => {});
  } finally {
    await output.close();
  }
}
