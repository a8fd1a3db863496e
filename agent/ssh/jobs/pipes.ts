import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';

/** The three streams of a process and the descriptors to start it with, to be closed once it runs. */
export interface Pipes {
  stdin: Writable;
  stdout: Readable;
  stderr: Readable;
  descriptors: [number, number, number];
}

export interface PipePool {
  /** Pipes for one process, or null if the machine does not support this (no /proc). */
  take(): Promise<Pipes | null>;
  close(): void;
}

interface PipeEnds {
  read: number;
  write: number;
}

/** Jobs with pipes in reserve: clients open a few sessions in a burst. */
const maxSpareJobs = 4;

/** The non-standard one-digit descriptors, which every shell can redirect: enough for two jobs. */
const shellDescriptors = [3, 4, 5, 6, 7, 8];
const pipesPerJob = 3;

/**
 * Makes a shell hold a pipe for each of these descriptors, since shells (dash, busybox, bash 5.1 and newer) put short
 * here-documents into pipes. The pipes are then opened through /proc.
 */
const pipeShellScript = `exec ${shellDescriptors.map((descriptor) => `${descriptor}<<'.'`).join(' ')}
${shellDescriptors.map(() => 'x\n.').join('\n')}
echo; read _`;

/**
 * A pool of real pipes, as sshd uses. Node gives its children socket pairs, on which `echo >/dev/stderr`,
 * `tee /dev/stdout` and `bash /dev/stdin` fail (sockets cannot be opened by name) and which bash mistakes for a network
 * connection. Named pipes do not work either: reopening /dev/stdin would block forever once the input has ended.
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

/** Pipes for two jobs, non-blocking. Rejects if the shell does not use pipes. */
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
    // Drains the here-document.
    readSync(read, Buffer.alloc(16));
    return { read, write: openSync(path, O_WRONLY | O_NONBLOCK) };
  } catch (error) {
    closeSync(read);
    throw error;
  }
}

/** The child's ends are reopened as blocking, which is a property of each open file description. */
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
