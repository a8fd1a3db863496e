import type { Entries, Entry, FileEntry, LinkEntry } from './entries.ts';
import type { Rules } from './rules.ts';

export type TreeErrorCode =
  /** What is there is not what was expected: somebody has changed it since the last scan. */
  | 'changed'
  /** A folder holds something that takes no part. */
  | 'not-empty'
  /** The path, or the link, would leave the root; or something on its way is a link. */
  | 'unsafe'
  | 'unreadable'
  | 'no-space'
  | 'failed'
  | 'too-large'
  | 'root-missing'
  | 'root-not-folder'
  /** The other side is gone; nothing was heard of what was under way. */
  | 'disconnected'
  /** The other side does not keep to the protocol. */
  | 'protocol';

export class TreeError extends Error {
  readonly code: TreeErrorCode;

  constructor(code: TreeErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'TreeError';
    this.code = code;
  }
}

/** A path that takes no part although no rule says so; what is below it does not either. */
export interface SkippedPath {
  path: string;
  why: 'unreadable' | 'not-regular' | 'link-leaves' | 'name' | 'changing';
}

export interface Scan {
  entries: Entries;
  skipped: SkippedPath[];
}

/** Takes a file's content in pieces; the next comes when the promise is fulfilled. */
export interface Sink {
  /** First of all, the permissions: for a file that is new at the other side. */
  begin(mode: number): Promise<void>;
  data(chunk: Buffer): Promise<void>;
}

/**
 * A folder that is kept in step with another: on this machine's disk, or at the other end of a stream. Every change
 * names what must be there before it (`expected`), and is refused with `changed` when something else is: what
 * nobody has seen is never overwritten. All reject with TreeError.
 */
export interface Tree {
  scan(rules: Rules): Promise<Scan>;
  /** Gives the content of a file that must be `entry` still. */
  read(path: string, entry: FileEntry, sink: Sink): Promise<void>;
  /** Writes beside, checks that the content is `entry`'s, and puts it in its place in one step. */
  write(
    path: string,
    entry: FileEntry,
    expected: Entry | null,
    fill: (sink: Sink) => Promise<void>,
  ): Promise<void>;
  setExecutable(path: string, executable: boolean, expected: FileEntry): Promise<void>;
  /** With these permissions less the umask; its owner may always use it, or it could not be filled. */
  makeFolder(path: string, mode?: number): Promise<void>;
  makeLink(path: string, entry: LinkEntry, expected: Entry | null): Promise<void>;
  /** A folder must be empty. */
  remove(path: string, expected: Entry): Promise<void>;
  /** To a name that nothing has. */
  rename(path: string, to: string, expected: Entry): Promise<void>;
  /** Calls `tell` once something may have changed, and not again before the next scan. */
  watch(tell: () => void): void;
  /** False where not every folder is watched (there are too many, or the system has no more): look more often. */
  readonly watched: boolean;
  close(): void;
}
