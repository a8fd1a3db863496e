/** The metadata of a file that a copy needs; links are followed. */
export interface Status {
  kind: 'file' | 'folder' | 'other';
  size: number;
  /** Permissions without the file type. */
  mode: number;
  /** Whole seconds since 1970, which is what SFTP carries. */
  modified: number;
  accessed: number;
}

export interface OpenFile {
  /** Reads up to the buffer's length; 0 at the end. */
  read(into: Buffer, position: number): Promise<number>;
  /** Writes take effect in the order of the calls, so that a partial file is always a prefix of the whole. */
  write(data: Buffer, position: number): Promise<void>;
  setMode(mode: number): Promise<void>;
  /** Truncates it, or extends it with a hole. */
  setSize(size: number): Promise<void>;
  setTimes(accessed: number, modified: number): Promise<void>;
  /** Flushes it to the disk. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

export interface ListedName {
  text: string | null;
  shown: string;
  /** Undefined if it would cost another request. Links do not count as folders. */
  isFolder?: boolean;
}

/** One side of a copy: this machine's disk or a workspace's. Paths use `/`. */
export interface Side {
  /** Its replies are not trusted: setuid, setgid and sticky bits are dropped. */
  isWorkspace: boolean;
  /** A path with its workspace, for people. */
  label(path: string): string;
  /** Follows links; null if nothing exists, which includes dangling links. */
  status(path: string): Promise<Status | null>;
  /** Whether the path is a regular file of ours, and its size. Null if it does not exist. */
  ownFile(path: string): Promise<{ size: number } | null>;
  /** The path without links; it must exist. */
  real(path: string): Promise<string>;
  /** The names in a folder. `text` is null for a name that is not UTF-8; `shown` displays it. */
  list(path: string): Promise<ListedName[]>;
  makeFolder(path: string, mode: number): Promise<void>;
  /**
   * `create` makes a new file, `go-on` keeps the content (check with `ownFile` before), `in-place` is for devices and
   * the like.
   */
  open(path: string, how: 'read' | 'create' | 'go-on' | 'in-place', mode?: number): Promise<OpenFile>;
  /** Atomic; replaces an existing file. */
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  setMode(path: string, mode: number): Promise<void>;
  setTimes(path: string, accessed: number, modified: number): Promise<void>;
  close(): void;
}
