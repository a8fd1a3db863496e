import { execFile } from 'node:child_process';
import { closeSync, constants, openSync, unlinkSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { promisify } from 'node:util';

/** The three streams of a process, and the descriptors to start it with; close those once it runs. */
export interface Pipes {
  stdin: Writable;
  stdout: Readable;
  stderr: Readable;
  descriptors: [number, number, number];
}

export interface PipePool {
  /** Pipes for one process, or null where the machine cannot make them (no `mkfifo`, no writable /tmp). */
  take(): Promise<Pipes | null>;
  close(): Promise<void>;
}

/** Three a process; refilled below the half. `mkfifo` takes 1–2 ms, so it is run before it is needed. */
const batch = 24;

/**
 * A pool of real pipes. Node gives children socket pairs, on which `echo >/dev/stderr`, `tee /dev/stdout`
 * and `bash /dev/stdin` fail (a socket cannot be opened by name), and which bash takes for a network
 * connection; sshd gives pipes. A named pipe that is unlinked once both its ends are open is one.
 */
export function makePipePool(): PipePool {
  const names: string[] = [];
  let folder: Promise<string> | undefined;
  let filling: Promise<void> | undefined;
  let counter = 0;
  let broken = false;
  let closed = false;

  async function fill() {
    try {
      folder ??= mkdtemp(join(tmpdir(), 'cde-pipes-'));
      const path = await folder;
      const made = Array.from({ length: batch }, () => join(path, String(counter++)));
      await promisify(execFile)('mkfifo', ['-m', '600', ...made]);
      if (!closed) names.push(...made);
    } catch {
      broken = true;
    } finally {
      filling = undefined;
    }
  }

  filling = fill();

  return {
    async take() {
      while (names.length < 3 && !broken && !closed) {
        filling ??= fill();
        await filling;
      }
      if (names.length < 3 || closed) return null;
      const [one, two, three] = names.splice(0, 3);
      if (names.length < batch / 2) filling ??= fill();
      try {
        return openPipes(one!, two!, three!);
      } catch {
        // Somebody cleaned /tmp: the names left are gone as well.
        names.length = 0;
        folder = undefined;
        return null;
      }
    },
    async close() {
      closed = true;
      await filling;
      const path = await folder?.catch(() => undefined);
      if (path) await rm(path, { recursive: true, force: true });
    },
  };
}

function openPipes(stdin: string, stdout: string, stderr: string): Pipes {
  const { O_RDONLY, O_WRONLY, O_NONBLOCK } = constants;
  const opened: number[] = [];
  const open = (path: string, flags: number) => {
    const descriptor = openSync(path, flags);
    opened.push(descriptor);
    return descriptor;
  };
  try {
    // Opening an end waits for the other one, unless it is the reader and does not block.
    const keeper = open(stdin, O_RDONLY | O_NONBLOCK);
    const stdinWrite = open(stdin, O_WRONLY | O_NONBLOCK);
    const stdinRead = open(stdin, O_RDONLY);
    closeSync(keeper);
    opened.splice(opened.indexOf(keeper), 1);
    const stdoutRead = open(stdout, O_RDONLY | O_NONBLOCK);
    const stdoutWrite = open(stdout, O_WRONLY);
    const stderrRead = open(stderr, O_RDONLY | O_NONBLOCK);
    const stderrWrite = open(stderr, O_WRONLY);
    for (const path of [stdin, stdout, stderr]) unlinkSync(path);
    return {
      stdin: new Socket({ fd: stdinWrite, readable: false, writable: true }),
      stdout: new Socket({ fd: stdoutRead, readable: true, writable: false }),
      stderr: new Socket({ fd: stderrRead, readable: true, writable: false }),
      descriptors: [stdinRead, stdoutWrite, stderrWrite],
    };
  } catch (error) {
    for (const descriptor of opened) closeSync(descriptor);
    throw error;
  }
}
