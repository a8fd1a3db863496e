import { posix } from 'node:path';
import { systemErrorText } from '@cde/api/system-errors.ts';
import type { SFTPWrapper, Stats } from 'ssh2';
import type { Context } from '../command/context.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure, toFailure } from '../failure/failure.ts';
import type { PathChoice } from '../ssh/opening.ts';
import { openSshClient } from '../ssh/ssh-client.ts';
import type { Start } from '../ssh/start-question.ts';
import type { ListedName, OpenFile, Side, Status } from './side.ts';

/** The first is "No such file", which our agent also returns if a path is not a folder. */
const noSuchFile = 2;
const eof = 1;
const maxNames = 500_000;

interface SftpError extends Error {
  code?: number | string;
}

/** Calls a function of ssh2 with a callback. */
const call = <T = void>(
  start: (done: (error: Error | undefined | null, value?: T) => void) => void,
): Promise<T> =>
  new Promise((resolve, reject) => start((error, value) => (error ? reject(error) : resolve(value as T))));

const absent = (error: SftpError) => {
  if (error.code === noSuchFile) return null;
  throw error;
};

/**
 * A workspace's files by SFTP, over a session of this command. `ended` rejects if the connection is lost for good, when
 * requests in progress get no response.
 */
export async function openSftpSide(
  context: Context,
  workspace: string,
  options: { start: Start; path?: PathChoice | undefined },
): Promise<Side & { ended: Promise<never> }> {
  const { client, ended, close } = await openSshClient(context, workspace, options);
  try {
    const sftp = await Promise.race([call<SFTPWrapper>((done) => client.sftp(done)), ended]);
    return { ...makeSftpSide(sftp, workspace, close), ended };
  } catch (error) {
    close();
    throw toFailure(error);
  }
}

function makeSftpSide(sftp: SFTPWrapper, workspace: string, close: () => void): Side {
  // If SFTP fails, the requests report that.
  sftp.on('error', () => {});
  const label = (path: string) => `${workspace}:${path}`;
  /** Adds the file name, which an SFTP status does not contain. */
  const about =
    <A extends unknown[], T>(work: (path: string, ...rest: A) => Promise<T>) =>
    async (path: string, ...rest: A): Promise<T> => {
      try {
        return await work(path, ...rest);
      } catch (error) {
        throw sftpFailure(error as SftpError, label(path));
      }
    };
  return {
    isWorkspace: true,
    label,
    status: about(async (path) => {
      const stats = await call<Stats>((done) => sftp.stat(wire(path), done)).catch(absent);
      return stats && statusOf(stats);
    }),
    ownFile: about(async (path) => {
      const stats = await call<Stats>((done) => sftp.lstat(wire(path), done)).catch(absent);
      return stats?.isFile() ? { size: stats.size } : null;
    }),
    real: about((path) => call<string>((done) => sftp.realpath(wire(path), done))),
    list: about(async (path) => {
      const entries = await listFolder(sftp, wire(path));
      const counts = new Map<string, number>();
      for (const { filename } of entries) counts.set(filename, (counts.get(filename) ?? 0) + 1);
      return Promise.all(
        entries.map(async ({ filename, attrs }): Promise<ListedName> => {
          const isFolder = attrs.isDirectory();
          // Invalid UTF-8 arrives as this character. If the name really contains it, exactly one such file exists.
          if (!filename.includes('\ufffd')) return { text: filename, shown: filename, isFolder };
          const at = posix.join(wire(path), filename);
          const there = await call<Stats>((done) => sftp.lstat(at, done)).catch(absent);
          return { text: there && counts.get(filename) === 1 ? filename : null, shown: filename, isFolder };
        }),
      );
    }),
    makeFolder: about((path, mode: number) => call((done) => sftp.mkdir(wire(path), { mode }, done))),
    open: about(async (path, how: 'read' | 'create' | 'go-on' | 'in-place', mode = 0o666) => {
      const flags = ({ read: 'r', create: 'xw+', 'go-on': 'r+', 'in-place': 'r+' } as const)[how];
      const handle = await call<Buffer>((done) => sftp.open(wire(path), flags, { mode }, done));
      return openedFile(sftp, handle, (error) => sftpFailure(error, label(path)));
    }),
    async rename(from, to) {
      await call((done) => sftp.ext_openssh_rename(wire(from), wire(to), done)).catch((error: SftpError) => {
        throw sftpFailure(error, label(to));
      });
    },
    remove: about((path) =>
      call((done) => sftp.unlink(wire(path), done)).then(
        () => {},
        (error) => void absent(error),
      ),
    ),
    setMode: about((path, mode: number) => call((done) => sftp.chmod(wire(path), mode, done))),
    setTimes: about((path, accessed: number, modified: number) =>
      call((done) => sftp.utimes(wire(path), accessed, modified, done)),
    ),
    close,
  };
}

/** `~/` is the home, as in a shell; SFTP starts there anyway. */
const wire = (path: string) => (path === '' || path === '~' ? '.' : path.replace(/^~\/+/, './'));

function openedFile(sftp: SFTPWrapper, handle: Buffer, tell: (error: SftpError) => Error): OpenFile {
  const telling = <T>(promise: Promise<T>) =>
    promise.catch((error: SftpError) => {
      throw tell(error);
    });
  return {
    read: (into, position) =>
      telling(
        call<number>((done) =>
          sftp.read(handle, into, 0, into.length, position, (error: SftpError | undefined, count) =>
            // SFTP reports the end of a file as a status; here it is a count of 0.
            error?.code === eof ? done(null, 0) : done(error, count),
          ),
        ),
      ),
    // The agent processes them in order.
    write: (data, position) =>
      telling(call((done) => sftp.write(handle, data, 0, data.length, position, (error) => done(error)))),
    setMode: (mode) => telling(call((done) => sftp.fchmod(handle, mode, done))),
    setSize: (size) => telling(call((done) => sftp.fsetstat(handle, { size } as never, done))),
    setTimes: (accessed, modified) => telling(call((done) => sftp.futimes(handle, accessed, modified, done))),
    sync: () => telling(call((done) => sftp.ext_openssh_fsync(handle, done))),
    close: () => call((done) => sftp.close(handle, done)),
  };
}

/** In batches, up to a limit beyond any real folder, because a hostile workspace may never stop sending names. */
async function listFolder(sftp: SFTPWrapper, path: string): Promise<{ filename: string; attrs: Stats }[]> {
  const handle = await call<Buffer>((done) => sftp.opendir(path, done));
  const entries: { filename: string; attrs: Stats }[] = [];
  try {
    for (;;) {
      const batch = await call<{ filename: string; attrs: Stats }[]>((done) =>
        sftp.readdir(handle, (error, list) =>
          (error as SftpError | undefined)?.code === eof ? done(null, []) : done(error, list as never),
        ),
      );
      if (!batch || batch.length === 0) return entries.filter(({ filename }) => !/^\.{1,2}$/.test(filename));
      entries.push(...batch);
      if (entries.length > maxNames)
        throw new Failure(
          'file-folder-too-large',
          `A folder of the workspace has more than ${maxNames} names.`,
          {
            hint: 'Copy what you need of it by name.',
          },
        );
    }
  } finally {
    await call((done) => sftp.close(handle, done)).catch(() => {});
  }
}

function statusOf(stats: Stats): Status {
  return {
    kind: stats.isFile() ? 'file' : stats.isDirectory() ? 'folder' : 'other',
    size: stats.size,
    mode: stats.mode & 0o7777,
    modified: stats.mtime,
    accessed: stats.atime,
  };
}

/** What SFTP servers send instead of a system error code. */
const codesByMessage: Record<string, string> = {
  'No such file': 'ENOENT',
  'Permission denied': 'EACCES',
  'No space left on device': 'ENOSPC',
  'Disk quota exceeded': 'EDQUOT',
  'File name too long': 'ENAMETOOLONG',
};

/** Converts an SFTP status to a failure that names the file. */
function sftpFailure(error: SftpError, where: string): Error {
  if (error instanceof Failure || typeof error.code !== 'number') return error;
  const code = /^(E[A-Z]+): |\((E[A-Z]+)\)$/.exec(error.message)?.slice(1).find(Boolean);
  const text = systemErrorText(code ?? codesByMessage[error.message]);
  return new Failure('file-failed', `${where} cannot be used: ${text?.reason ?? error.message}.`, {
    exitCode: error.code === noSuchFile ? exitCodes.notFound : exitCodes.failure,
    hint: text?.hint ?? 'Check that it exists in the workspace and that you may read and write it there.',
    cause: error,
  });
}
