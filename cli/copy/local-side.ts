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

/** This machine's files. */
export const localSide: Side = {
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
    // In a folder like /tmp somebody else may have put it there.
    const ours = stats.isFile() && (!process.getuid || stats.uid === process.getuid());
    return ours ? { size: stats.size } : null;
  },
  real: (path) => realpath(path),
  list: (path) => readdir(path),
  makeFolder: async (path, mode) => void (await mkdir(path, mode)),
  open: async (path, how, mode = 0o666) => openedFile(await open(path, flags[how], mode)),
  rename: (from, to) => rename(from, to),
  remove: (path) => rm(path, { force: true }),
  setMode: (path, mode) => chmod(path, mode),
  setTimes: (path, accessed, modified) => utimes(path, accessed, modified),
  close() {},
};

function openedFile(file: FileHandle): OpenFile {
  let last: Promise<unknown> = Promise.resolve();
  return {
    read: async (into, position) => (await file.read(into, 0, into.length, position)).bytesRead,
    write(data, position) {
      // One after another: left to the thread pool, a later one might be done first.
      const written = last.then(async () => {
        for (let done = 0; done < data.length; )
          done += (await file.write(data, done, data.length - done, position + done)).bytesWritten;
      });
      last = written.catch(() => {});
      return written;
    },
    setMode: (mode) => file.chmod(mode),
    setTimes: (accessed, modified) => file.utimes(accessed, modified),
    sync: () => file.sync(),
    close: () => file.close(),
  };
}
