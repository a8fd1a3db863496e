import type { Readable, Writable } from 'node:stream';
import type { ServerChannel } from 'ssh2';
import { forgetWritten } from '../protocol/ssh2-internals.ts';

/** Sources are paused above this much unsent output and resumed below half of it. */
const highWater = 256 * 1024;

/** A session's stdout and stderr, in order and with backpressure. */
export interface Output {
  /** Sends the data of `source`, pausing it while the client is slow. Resolves at its end. */
  carry(source: Readable, to: 'stdout' | 'stderr'): Promise<void>;
  write(text: string, to: 'stdout' | 'stderr'): void;
  /** Resolves when everything has been sent within the client's window, or the channel has closed. */
  drained(): Promise<void>;
  /** The client does not read stdout any longer: queued output is dropped. stderr continues. */
  dropStdout(): void;
  /** The client has disconnected: queued and later output is discarded. */
  drop(): void;
}

/**
 * Makes the output of a channel. There is one pending write at a time for stdout and stderr together: they share a window,
 * and ssh2 mixes them up if both wait for it.
 */
export function makeOutput(channel: ServerChannel): Output {
  const queue: { chunk: Buffer; to: 'stdout' | 'stderr' }[] = [];
  const paused = new Set<Readable>();
  let waiters: (() => void)[] = [];
  let pending = 0;
  let writing = false;
  let dropped = false;
  let stdoutDropped = false;

  function relieve() {
    for (const source of paused) source.resume();
    paused.clear();
  }

  function next() {
    const item = queue.shift();
    if (!item || dropped) {
      writing = false;
      for (const resolve of waiters) resolve();
      waiters = [];
      return;
    }
    writing = true;
    const target: Writable = item.to === 'stdout' ? channel : channel.stderr;
    target.write(item.chunk, () => {
      forgetWritten(channel);
      pending -= item.chunk.length;
      if (pending < highWater / 2 && paused.size > 0) relieve();
      next();
    });
  }

  function push(chunk: Buffer, to: 'stdout' | 'stderr') {
    if (dropped || chunk.length === 0 || (stdoutDropped && to === 'stdout')) return;
    queue.push({ chunk, to });
    pending += chunk.length;
    if (!writing) next();
  }

  return {
    carry(source, to) {
      return new Promise((resolve) => {
        source.on('data', (chunk: Buffer) => {
          push(chunk, to);
          if (pending > highWater) {
            source.pause();
            paused.add(source);
          }
        });
        source.once('close', resolve);
        source.once('end', resolve);
        // A pty reports its end as EIO. Errors of pipes need no other handling.
        source.on('error', () => resolve());
      });
    },
    write(text, to) {
      push(Buffer.from(text), to);
    },
    drained() {
      if (!writing) return Promise.resolve();
      return new Promise((resolve) => waiters.push(resolve));
    },
    dropStdout() {
      stdoutDropped = true;
      for (const { chunk } of queue.filter(({ to }) => to === 'stdout')) pending -= chunk.length;
      queue.splice(0, queue.length, ...queue.filter(({ to }) => to !== 'stdout'));
      relieve();
    },
    drop() {
      dropped = true;
      queue.length = 0;
      pending = 0;
      relieve();
      for (const resolve of waiters) resolve();
      waiters = [];
    },
  };
}
