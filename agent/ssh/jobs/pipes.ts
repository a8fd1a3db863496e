import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';

/** The three streams of a process, and the descriptors to start it with; close those once it runs. */
export interface Pipes {
  stdin: Writable;
  stdout: Readable;
  stderr: Readable;
  descriptors: [number, number, number];
}

export interface PipePool {
  /** Pipes for one process, or null where the machine gives none (no /proc). */
  take(): Promise<Pipes | null>;
  close(): void;
}

interface PipeEnds {
  read: number;
  write: number;
}

/** Jobs whose pipes are kept ready: a client opens a few sessions at once, then rests. */
const maxSpareJobs = 4;

/** The one-digit descriptors that every shell can redirect, less the standard ones: two jobs' worth. */
const shellDescriptors = [3, 4, 5, 6, 7, 8];
const pipesPerJob = 3;

/**
 * A shell that holds one pipe for each of these descriptors: shells keep a short here-document in one.
 * dash, busybox and bash since 5.1 do; the pipe is taken over by its name in /proc.
 */
const pipeShellScript = `exec ${shellDescriptors.map((descriptor) => `${descriptor}<<'.'`).join(' ')}
${shellDescriptors.map(() => 'x\n.').join('\n')}
echo; read _`;

/**
 * A pool of real pipes. Node itself gives its children socket pairs, on which `echo >/dev/stderr`,
 * `tee /dev/stdout` and `bash /dev/stdin` fail (a socket cannot be opened by its name), and which bash
 * takes for a network connection. sshd gives pipes. (Named pipes would not do: opening /dev/stdin again
 * waits for a writer for ever when the input has already ended.)
 */
export function makePipePool(): PipePool {
  const spare: PipeEnds[][] = [];
  let filling: Promise<void> | undefined;
  let broken = process.platform !== 'linux';
  let closed = false;

  async function fill() {
    try {
      while (spare.length < maxSpareJobs && !broken && !closed) spare.push(...(await makePipes()));
    } catch {
      broken = true;
    }
    if (closed) drop();
    filling = undefined;
  }
  function drop() {
    for (const { read, write } of spare.splice(0).flat()) {
      closeSync(read);
      closeSync(write);
    }
  }

  filling = fill();

  return {
    async take() {
      while (spare.length === 0 && !broken && !closed) {
        filling ??= fill();
        await filling;
      }
      const pipes = closed ? undefined : spare.shift();
      if (spare.length < maxSpareJobs / 2 && !broken) filling ??= fill();
      return pipes ? openJob(pipes as [PipeEnds, PipeEnds, PipeEnds]) : null;
    },
    close() {
      closed = true;
      if (!filling) drop();
    },
  };
}

/** The pipes of one job each, both ends without blocking. Rejects where the shell uses no pipes. */
async function makePipes(): Promise<PipeEnds[][]> {
  const shell = spawn('/bin/sh', ['-c', pipeShellScript], {
    stdio: ['pipe', 'pipe', 'ignore'],
    detached: true,
  });
  const failed = once(shell, 'error').then(([error]) => Promise.reject(error as Error));
  const ends: PipeEnds[] = [];
  try {
    const said = await Promise.race([once(shell.stdout, 'data'), once(shell.stdout, 'end'), failed]);
    if (said.length === 0) throw new Error('the shell did not start');
    for (const descriptor of shellDescriptors) ends.push(openEnds(`/proc/${shell.pid}/fd/${descriptor}`));
    const jobs: PipeEnds[][] = [];
    while (ends.length > 0) jobs.push(ends.splice(0, pipesPerJob));
    return jobs;
  } catch (error) {
    for (const { read, write } of ends) {
      closeSync(read);
      closeSync(write);
    }
    throw error;
  } finally {
    shell.stdin.on('error', () => {});
    shell.stdin.destroy();
    shell.stdout.destroy();
    failed.catch(() => {});
  }
}

const { O_RDONLY, O_WRONLY, O_NONBLOCK } = constants;

function openEnds(path: string): PipeEnds {
  const read = openSync(path, O_RDONLY | O_NONBLOCK);
  try {
    if (!fstatSync(read).isFIFO()) throw new Error('not a pipe');
    // What the here-document said.
    readSync(read, Buffer.alloc(16));
    return { read, write: openSync(path, O_WRONLY | O_NONBLOCK) };
  } catch (error) {
    closeSync(read);
    throw error;
  }
}

/** The child's ends are opened anew, since blocking or not belongs to each opening of a pipe. */
function openJob([input, output, errors]: [PipeEnds, PipeEnds, PipeEnds]): Pipes {
  const again = (descriptor: number, flags: number) => {
    const opened = openSync(`/proc/self/fd/${descriptor}`, flags);
    closeSync(descriptor);
    return opened;
  };
  return {
    descriptors: [again(input.read, O_RDONLY), again(output.write, O_WRONLY), again(errors.write, O_WRONLY)],
    stdin: new Socket({ fd: input.write, readable: false, writable: true }),
    stdout: new Socket({ fd: output.read, readable: true, writable: false }),
    stderr: new Socket({ fd: errors.read, readable: true, writable: false }),
  };
}
