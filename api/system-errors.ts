/**
 * What an error of the operating system means and what to do about it. Used wherever one can reach a person: such an
 * error is no bug in cde, and `ENOSPC: no space left on device, write` explains little.
 */
export interface SystemErrorText {
  /** Completes "PATH: …". */
  reason: string;
  hint: string;
}

const texts: Record<string, SystemErrorText> = {
  ENOSPC: { reason: 'the disk is full', hint: 'Free some space there and try again.' },
  EDQUOT: { reason: 'the disk quota is used up', hint: 'Free some space, or ask for a larger quota.' },
  EFBIG: {
    reason: 'the file is larger than the file system or the process limit allows',
    hint: 'Check `ulimit -f` and the limits of the file system.',
  },
  EACCES: {
    reason: 'permission denied',
    hint: 'Check its permissions and those of the folders that lead to it.',
  },
  EPERM: {
    reason: 'the operating system does not permit it',
    hint: 'Check who owns it, and whether it is marked immutable.',
  },
  EROFS: { reason: 'the file system is read-only', hint: 'Choose another location, or mount it writable.' },
  EMFILE: {
    reason: 'this process has too many files open',
    hint: 'Raise the limit of open files (`ulimit -n`) and try again.',
  },
  ENFILE: { reason: 'the machine has too many files open', hint: 'Close other programs and try again.' },
  ENAMETOOLONG: { reason: 'the name is too long for its file system', hint: 'Use a shorter name.' },
  EIO: {
    reason: 'the disk reported an input/output error',
    hint: "Check the disk and the system's log (`dmesg`).",
  },
  ENOMEM: { reason: 'there is not enough memory', hint: 'Close other programs and try again.' },
  EAGAIN: {
    reason: 'the system is out of a resource for the moment',
    hint: 'Check the limit of processes (`ulimit -u`) and try again.',
  },
  ENOENT: { reason: 'no such file or folder', hint: 'Check the path.' },
  ENOTDIR: { reason: 'a part of the path is not a folder', hint: 'Check the path.' },
  EISDIR: { reason: 'it is a folder', hint: 'Name a file.' },
  EEXIST: { reason: 'it already exists', hint: 'Move it away, or use another name.' },
  ENOTEMPTY: { reason: 'the folder is not empty', hint: 'Remove or move its content.' },
  ELOOP: { reason: 'too many symbolic links lead to it', hint: 'Check the links in its path.' },
  EXDEV: { reason: 'it is on another file system', hint: 'Choose a location on the same file system.' },
  EMLINK: { reason: 'it has too many links', hint: 'Remove some of them.' },
  EBUSY: { reason: 'it is in use', hint: 'Stop the program that uses it and try again.' },
  ETXTBSY: { reason: 'it is a program that is running', hint: 'Stop the program and try again.' },
  ESTALE: {
    reason: 'the network file system no longer has it',
    hint: 'Check the mount and try again.',
  },
  ENODEV: { reason: 'there is no such device', hint: 'Check the path.' },
  ENXIO: { reason: 'there is no such device, or nothing is listening on it', hint: 'Check the path.' },
  EINVAL: { reason: 'the operating system does not accept it', hint: 'Check the name and its file system.' },
  EILSEQ: {
    reason: 'the file system does not accept this name',
    hint: 'Rename it with characters that the file system supports.',
  },
  ENOTSUP: { reason: 'the file system cannot do this', hint: 'Choose a location on another file system.' },
  ENOSYS: {
    reason: 'the operating system cannot do this',
    hint: 'Choose a location on another file system.',
  },
  ENOLCK: { reason: 'the file system has no more locks', hint: 'Try again in a moment.' },
  EBADF: { reason: 'the file is not open for this', hint: 'Check how it was opened or redirected.' },
  EPIPE: { reason: 'the reader has closed the pipe', hint: 'Check the program that reads it.' },
  EADDRINUSE: { reason: 'the address is in use', hint: 'Stop the program that uses it, or choose another.' },
  EADDRNOTAVAIL: { reason: 'this machine does not have the address', hint: 'Choose another address.' },
};
const aliases: Record<string, string> = { EOPNOTSUPP: 'ENOTSUP' };

/** The text for a code such as `ENOSPC`; undefined if there is none. */
export function systemErrorText(code: unknown): SystemErrorText | undefined {
  if (typeof code !== 'string') return undefined;
  const known = Object.hasOwn(aliases, code) ? aliases[code]! : code;
  return Object.hasOwn(texts, known) ? texts[known] : undefined;
}

/**
 * `the disk is full (ENOSPC)` for any thrown value that the operating system caused; undefined for everything else. A
 * code without a text keeps the system's message.
 */
export function systemErrorReason(error: unknown): string | undefined {
  if (!isSystemError(error)) return undefined;
  const text = systemErrorText(error.code);
  // `EREMOTEIO: remote I/O error, read '/x'`: the code and the path are shown elsewhere.
  const words = text?.reason ?? error.message.replace(/^[A-Z0-9]+: /, '').replace(/, \w+( '.*)?$/s, '');
  return `${words} (${error.code})`;
}

export interface SystemError extends Error {
  code: string;
  errno: number;
  syscall?: string;
  path?: string;
  dest?: string;
}

export function isSystemError(error: unknown): error is SystemError {
  const { errno, code } = (error ?? {}) as Partial<SystemError>;
  return (
    error instanceof Error &&
    typeof errno === 'number' &&
    typeof code === 'string' &&
    /^E[A-Z0-9]+$/.test(code)
  );
}
