import { constants } from 'node:fs';
import {
  chmod,
  type FileHandle,
  lstat,
  mkdir,
  open,
  readdir,
  realpath,
  rename,
  rm,
  stat,
  utimes,
} from 'node:fs/promises';
import { isSystemError } from '@cde/api/system-errors.ts';
import { readName } from '@cde/filesync/names.ts';
import type { OpenFile, Side, Status } from './side.ts';

const absent = (error: NodeJS.ErrnoException) => {
  if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return null;
  throw error;
};

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_RDONLY, O_RDWR, O_WRONLY } = constants;
const flags = {
  read: O_RDONLY,
  create: O_RDWR | O_CREAT | O_EXCL,
  'go-on': O_RDWR | O_NOFOLLOW,
  'in-place': O_WRONLY,
};

/** Files on this machine. */
export const localSide: Side = {
  isWorkspace: false,
  label: (path) => path,
  async status(path) {
    const stats = await stat(path).catch(absent);
    if (!stats) return null;
    const kind: Status['kind'] = stats.isFile() ? 'file' : stats.isDirectory() ? 'folder' : 'other';
    return {
      kind,
      size: stats.size,
      mode: stats.mode & 0o7777,
      modified: Math.floor(stats.mtimeMs / 1000),
      accessed: Math.floor(stats.atimeMs / 1000),
    };
  },
  async ownFile(path) {
    const stats = await lstat(path).catch(absent);
    if (!stats) return null;
    // In a folder like /tmp another user may have put it there.
    const ours = stats.isFile() && (!process.getuid || stats.uid === process.getuid());
    return ours ? { size: stats.size } : null;
  },
  real: (path) => realpath(path),
  list: async (path) => (await readdir(path, { encoding: 'buffer' })).map(readName),
  makeFolder: async (path, mode) => void (await mkdir(path, mode)),
  open: async (path, how, mode = 0o666) => openedFile(await open(path, flags[how], mode), path),
  rename: (from, to) => rename(from, to),
  remove: (path) => rm(path, { force: true }),
  setMode: (path, mode) => chmod(path, mode),
  setTimes: (path, accessed, modified) => utimes(path, accessed, modified),
  close() {},
};

function openedFile(file: FileHandle, path: string): OpenFile {
  /** Node's errors for open files do not name the file. */
  const naming = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (error) {
      throw isSystemError(error) ? Object.assign(error, { path }) : error;
    }
  };
  let last: Promise<unknown> = Promise.resolve();
  return {
    read: async (into, position) => (await naming(file.read(into, 0, into.length, position))).bytesRead,
    write(data, position) {
      // One after another, because the thread pool could reorder them.
      const written = last.then(async () => {
        for (let done = 0; done < data.length; )
          done += (await file.write(data, done, data.length - done, position + done)).bytesWritten;
      });
      last = written.catch(() => {});
      return naming(written);
    },
    setMode: (mode) => naming(file.chmod(mode)),
    setSize: (size) => naming(last.then(() => file.truncate(size))),
    setTimes: (accessed, modified) => naming(file.utimes(accessed, modified)),
    sync: () => naming(file.sync()),
    close: () => naming(file.close()),
  };
}
