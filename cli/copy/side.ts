/** What the copy needs to know of a file; links are followed. */
export interface Status {
  kind: 'file' | 'folder' | 'other';
  size: number;
  /** Permissions alone, without the type. */
  mode: number;
  /** Whole seconds since 1970, which is what SFTP carries. */
  modified: number;
  accessed: number;
}

export interface OpenFile {
  /** As many bytes as there are up to the buffer's length; 0 at the end. */
  read(into: Buffer, position: number): Promise<number>;
  /** Writes take effect in the order of the calls, so that what has been written is always a beginning of the whole. */
  write(data: Buffer, position: number): Promise<void>;
  setMode(mode: number): Promise<void>;
  /** Cuts it, or makes it longer by a hole. */
  setSize(size: number): Promise<void>;
  setTimes(accessed: number, modified: number): Promise<void>;
  /** To the disk. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

export interface ListedName {
  text: string | null;
  shown: string;
  /** Where that is known without another question; a link is none. */
  isFolder?: boolean;
}

/** Where files are copied from and to: this machine's disk, or a workspace's. Paths are with `/`. */
export interface Side {
  /** What it says is not trusted: no setuid, setgid or sticky bit is taken from there. */
  isWorkspace: boolean;
  /** A path with the workspace before it, for people. */
  label(path: string): string;
  /** Follows links; null where there is nothing, a link to nothing included. */
  status(path: string): Promise<Status | null>;
  /** Whether something of our own, and no link, stands at this path; with its size. Null where nothing does. */
  ownFile(path: string): Promise<{ size: number } | null>;
  /** The path without links; of what exists. */
  real(path: string): Promise<string>;
  /** The names in a folder; `text` is null for one that is not UTF-8, which is told as `shown`. */
  list(path: string): Promise<ListedName[]>;
  makeFolder(path: string, mode: number): Promise<void>;
  /** `create` makes a new one; `go-on` keeps what is there (look with `ownFile` before). `in-place` is for devices and the like. */
  open(path: string, how: 'read' | 'create' | 'go-on' | 'in-place', mode?: number): Promise<OpenFile>;
  /** In one step, over a file that may be there. */
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  setMode(path: string, mode: number): Promise<void>;
  setTimes(path: string, accessed: number, modified: number): Promise<void>;
  close(): void;
}
