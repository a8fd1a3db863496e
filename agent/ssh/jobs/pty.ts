import { existsSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { ReadStream } from 'node:tty';
import { fileURLToPath } from 'node:url';

/**
 * A pseudo-terminal with a process in it. It uses node-pty's native module without its JavaScript, which writes to the
 * terminal synchronously (a program that does not read its input would block the agent) and drops output that is unread
 * 200 ms after the process has ended.
 */
export interface Pty {
  pid: number;
  /** Name of the slave: `/dev/pts/3`. */
  name: string;
  /** The output; ends (or fails with EIO) when the last process has closed the terminal. */
  output: ReadStream;
  /** Queues input; `done` is called when it was written or the terminal has closed. */
  write(chunk: Buffer, done: () => void): void;
  resize(columns: number, rows: number): void;
  /** Resolves when the process has ended; `signal` is a number, 0 for none. */
  exited: Promise<{ code: number; signal: number }>;
  /** Closes the master, which hangs up all processes in the terminal. */
  close(): void;
}

interface NativePty {
  fork(
    file: string,
    args: string[],
    environment: string[],
    folder: string,
    columns: number,
    rows: number,
    uid: number,
    gid: number,
    utf8: boolean,
    helper: string,
    exit: (code: number, signal: number) => void,
  ): { fd: number; pid: number; pty: string };
  resize(descriptor: number, columns: number, rows: number): void;
}

const require = createRequire(import.meta.url);
let native: NativePty | undefined;
/** The module is next to the bundle, or in its package. */
function loadNative(): NativePty {
  native ??= (
    existsSync(beside('pty.node'))
      ? require('./pty.node')
      : require('@lydell/node-pty/requireBinary.js').requireBinary('pty.node')
  ) as NativePty;
  return native;
}
/** Only used on macOS, where node-pty starts processes through a helper program. */
function helperPath(): string {
  if (process.platform !== 'darwin') return '';
  const bundled = beside('spawn-helper');
  if (existsSync(bundled)) return bundled;
  return require.resolve(`@lydell/node-pty-${process.platform}-${process.arch}/spawn-helper`);
}
function beside(name: string): string {
  return fileURLToPath(new URL(name, import.meta.url));
}

/** Descriptors of all open terminals. node-pty leaves them inheritable, so children must close them. */
export const openTerminals = new Set<number>();

const writeAtOnce = 4096;
const retryMs = 10;

/** Starts `file` in a new terminal of `columns` × `rows`. Throws if the system has no terminals left. */
export function openPty(options: {
  file: string;
  args: string[];
  environment: Record<string, string>;
  folder: string;
  columns: number;
  rows: number;
}): Pty {
  const module = loadNative();
  let ended: (value: { code: number; signal: number }) => void = () => {};
  const exited = new Promise<{ code: number; signal: number }>((resolve) => {
    ended = resolve;
  });
  const { fd, pid, pty } = module.fork(
    options.file,
    options.args,
    Object.entries(options.environment).map(([name, value]) => `${name}=${value}`),
    options.folder,
    size(options.columns, 80),
    size(options.rows, 24),
    -1,
    -1,
    true,
    helperPath(),
    (code, signal) => ended({ code, signal }),
  );
  openTerminals.add(fd);
  const output = new ReadStream(fd);
  const queue: { chunk: Buffer; done: () => void }[] = [];
  let timer: NodeJS.Timeout | undefined;
  let closed = false;
  output.once('close', () => {
    closed = true;
    openTerminals.delete(fd);
    clearTimeout(timer);
    for (const { done } of queue.splice(0)) done();
  });

  /** Writes until the terminal's buffer is full, then retries after a pause. */
  function flush() {
    timer = undefined;
    while (queue.length > 0 && !closed) {
      const item = queue[0]!;
      let written: number;
      try {
        written = writeSync(fd, item.chunk, 0, Math.min(item.chunk.length, writeAtOnce));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'EAGAIN') {
          timer = setTimeout(flush, retryMs);
          return;
        }
        for (const { done } of queue.splice(0)) done();
        return;
      }
      if (written < item.chunk.length) {
        item.chunk = item.chunk.subarray(written);
        if (written === 0) {
          timer = setTimeout(flush, retryMs);
          return;
        }
      } else {
        queue.shift();
        item.done();
      }
    }
  }

  return {
    pid,
    name: pty,
    output,
    exited,
    write(chunk, done) {
      if (closed) {
        done();
        return;
      }
      queue.push({ chunk, done });
      if (queue.length === 1) flush();
    },
    resize(columns, rows) {
      if (closed || columns < 1 || rows < 1) return;
      module.resize(fd, size(columns, 80), size(rows, 24));
    },
    close() {
      if (!closed) output.destroy();
    },
  };
}

/** A terminal's size is 16 bits; a client without a terminal sends 0. */
function size(value: number, otherwise: number): number {
  return value >= 1 && value <= 65535 ? Math.floor(value) : otherwise;
}
