import type { Socket } from 'node:net';
import type { ApiError } from '@cde/api/errors.ts';
import type { ToldIncident } from '../diagnosis/recording.ts';
import type { PathChoice } from '../ssh/opening.ts';

/**
 * The protocol of the background process's socket, in lines of JSON: a greeting, the client's request, the reply. After
 * the reply to `stream` the connection carries the bytes of that stream.
 */
export type BackgroundRequest =
  /** A stream to the workspace's SSH server. `opening`: from `cde ssh`, if there is one. */
  | { ask: 'stream'; workspace: string; path: PathChoice; opening?: string }
  /** Why that stream ended. */
  | { ask: 'why'; stream: string }
  /** A line for each incident of that stream's session, until the connection is closed. */
  | { ask: 'incidents'; stream: string }
  /** Whether a working session is open. */
  | { ask: 'look'; workspace: string; path: PathChoice }
  | { ask: 'show' }
  | { ask: 'stop' };

export type FailureJson = ApiError & { exitCode: number };

export interface SessionSummary {
  workspace: string;
  /** The kind of path and its address; null while there is none. */
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
      incident?: ToldIncident;
    }
  | { ok: false; error?: FailureJson };

/** Maximum length of a line. An opening with its ticket takes about 4 KiB. */
const maxMessageBytes = 65_536;

/** Reads one line and puts back what follows it. Rejects if the connection ends first, or after `withinMs`. */
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
