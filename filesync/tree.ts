import type { Entries, Entry, FileEntry, LinkEntry } from './entries.ts';
import type { Rules } from './rules.ts';

export type TreeErrorCode =
  /** The path is not as expected: it was changed after the last scan. */
  | 'changed'
  /** A folder contains entries that are not synchronized. */
  | 'not-empty'
  /** The path or link would leave the root, or passes through a link. */
  | 'unsafe'
  | 'unreadable'
  | 'no-space'
  | 'failed'
  | 'too-large'
  | 'root-missing'
  | 'root-not-folder'
  /** The connection ended; the outcome of pending operations is unknown. */
  | 'disconnected'
  /** The other side violated the protocol. */
  | 'protocol';

export class TreeError extends Error {
  readonly code: TreeErrorCode;

  constructor(code: TreeErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'TreeError';
    this.code = code;
  }
}

/** A path that cannot be synchronized, although no rule excludes it, and everything below it. */
export interface SkippedPath {
  path: string;
  why: 'unreadable' | 'not-regular' | 'link-leaves' | 'name' | 'changing';
}

export interface Scan {
  entries: Entries;
  skipped: SkippedPath[];
}

/** Receives a file's content in chunks; the next one follows when the promise resolves. */
export interface Sink {
  /** Called first, with the permissions for a file that is new on the other side. */
  begin(mode: number): Promise<void>;
  data(chunk: Buffer): Promise<void>;
}

/**
 * A folder to synchronize, on this machine's disk or at the other end of a stream. Every change names the entry that
 * must be there before it (`expected`) and fails with `changed` otherwise, so that unseen changes are never overwritten.
 * All methods reject with TreeError.
 */
export interface Tree {
  scan(rules: Rules): Promise<Scan>;
  /** Reads a file, which must still match `entry`. */
  read(path: string, entry: FileEntry, sink: Sink): Promise<void>;
  /** Writes a temporary file, verifies that it matches `entry`, and moves it into place atomically. */
  write(
    path: string,
    entry: FileEntry,
    expected: Entry | null,
    fill: (sink: Sink) => Promise<void>,
  ): Promise<void>;
  setExecutable(path: string, executable: boolean, expected: FileEntry): Promise<void>;
  /** Applies these permissions less the umask, but always allows the owner to fill the folder. */
  makeFolder(path: string, mode?: number): Promise<void>;
  makeLink(path: string, entry: LinkEntry, expected: Entry | null): Promise<void>;
  /** A folder must be empty. */
  remove(path: string, expected: Entry): Promise<void>;
  /** The new name must not exist. */
  rename(path: string, to: string, expected: Entry): Promise<void>;
  /** Calls `onChange` once something may have changed, and not again before the next scan. */
  watch(onChange: () => void): void;
  /** False if not every folder is watched (too many, or the system's limit is reached): scan more often. */
  readonly watched: boolean;
  close(): void;
}
