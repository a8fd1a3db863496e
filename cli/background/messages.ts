import type { Socket } from 'node:net';
import type { ApiError } from '@cde/api/errors.ts';
import type { PathChoice } from '../ssh/opening.ts';

/**
 * What is said over the background process's socket: it greets with a line, the other asks with a line, it answers
 * with a line; after the answer to `stream` the connection is that stream's bytes.
 */
export type BackgroundRequest =
  /** A stream to the workspace's SSH server. `opening` as `cde ssh` hands it down, where there is one. */
  | { ask: 'stream'; workspace: string; path: PathChoice; opening?: string }
  /** Why that stream ended. */
  | { ask: 'why'; stream: string }
  /** Whether there is a session that works at this moment. */
  | { ask: 'look'; workspace: string; path: PathChoice }
  | { ask: 'show' }
  | { ask: 'stop' };

export type FailureJson = ApiError & { exitCode: number };

export interface SessionSummary {
  workspace: string;
  /** The kind of path and where it leads, or null while there is none. */
  path: { kind: string; via: string } | null;
  streams: number;
  since: string;
}

export type BackgroundReply =
  | {
      ok: true;
      stream?: string;
      hostKey?: string;
      username?: string;
      error?: FailureJson;
      sessions?: SessionSummary[];
    }
  | { ok: false; error?: FailureJson };

/** The longest line: an opening with its ticket is some 4 KiB. */
const maxMessageBytes = 65_536;

/** One line; what follows it is put back. Rejects when the connection ends before, or after `withinMs`. */
export function readLine(socket: Socket, withinMs: number): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = Buffer.alloc(0);
    const settle = (error: Error | null) => {
      clearTimeout(timer);
      socket.off('readable', read).off('error', settle).off('close', closed);
      if (error) reject(error);
    };
    const closed = () => settle(new Error('the connection ended'));
    const timer = setTimeout(() => settle(new Error(`nothing said within ${withinMs} ms`)), withinMs);
    const read = () => {
      for (let chunk = socket.read() as Buffer | null; chunk; chunk = socket.read() as Buffer | null) {
        text = Buffer.concat([text, chunk]);
        const end = text.indexOf(10);
        if (end >= 0) {
          settle(null);
          const rest = text.subarray(end + 1);
          if (rest.length > 0) socket.unshift(rest);
          return resolve(text.toString('utf8', 0, end));
        }
        if (text.length > maxMessageBytes) return settle(new Error('the line is too long'));
      }
      if (socket.readableEnded) closed();
    };
    socket.on('readable', read).on('error', settle).on('close', closed);
    read();
  });
}

export const writeLine = (socket: Socket, message: unknown): void =>
  void socket.write(`${JSON.stringify(message)}\n`);
