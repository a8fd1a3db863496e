import type { Duplex } from 'node:stream';
import { TreeError } from './tree.ts';

/**
 * The protocol of a `files` stream: frames with a head (JSON) and a body (bytes), preceded by the length of each in four
 * bytes. The client sends requests `{id, op, …}`. The agent responds with any number of `{id, part, …}` and one
 * `{id, ok}` or `{id, error}`, in the order of the requests, except that the response to a `write` may arrive after later
 * ones. It sends `{event: 'changed'}` unprompted. A `write` request is followed by `begin`, `data` and `end` or `abort`,
 * with nothing in between.
 */
export interface Frame {
  head: Record<string, unknown>;
  body: Buffer;
  /** Encoded size of the head; in memory it takes several times as much. */
  headBytes: number;
}

const maxHeadBytes = 1024 * 1024;
const maxBodyBytes = 1024 * 1024;
const empty = Buffer.alloc(0);

/** Resolves when the stream accepts more data. Rejects with `disconnected` if it is closed. */
export function writeFrame(
  stream: Duplex,
  head: Record<string, unknown>,
  body: Buffer = empty,
): Promise<void> {
  const text = Buffer.from(JSON.stringify(head));
  const lengths = Buffer.allocUnsafe(8);
  lengths.writeUInt32BE(text.length, 0);
  lengths.writeUInt32BE(body.length, 4);
  if (!stream.writable) return Promise.reject(disconnected());
  stream.cork();
  stream.write(lengths);
  let room = stream.write(text);
  if (body.length > 0) room = stream.write(body);
  stream.uncork();
  if (room) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const settle = () => {
      stream.off('drain', settle).off('close', settle);
      if (stream.destroyed) reject(disconnected());
      else resolve();
    };
    stream.on('drain', settle).on('close', settle);
  });
}

export const disconnected = (cause?: unknown) =>
  new TreeError('disconnected', 'the connection to the other side ended', { cause });

/** Splits a stream into frames, with backpressure. Throws `protocol` for invalid data. */
export async function* readFrames(stream: Duplex): AsyncGenerator<Frame, void> {
  let chunks: Buffer[] = [];
  let length = 0;
  const take = (size: number): Buffer => {
    const all = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
    chunks = all.length > size ? [all.subarray(size)] : [];
    length -= size;
    return all.subarray(0, size);
  };
  let wanted: { head: number; body: number } | null = null;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    chunks.push(chunk);
    length += chunk.length;
    for (;;) {
      if (!wanted) {
        if (length < 8) break;
        const lengths = take(8);
        wanted = { head: lengths.readUInt32BE(0), body: lengths.readUInt32BE(4) };
        if (wanted.head > maxHeadBytes || wanted.body > maxBodyBytes)
          throw new TreeError('protocol', 'the frame exceeds the size limit');
      }
      if (length < wanted.head + wanted.body) break;
      const headBytes = wanted.head;
      const text = take(headBytes).toString('utf8');
      const body = take(wanted.body);
      wanted = null;
      yield { head: parse(text), body, headBytes };
    }
  }
}

function parse(text: string): Record<string, unknown> {
  try {
    const head: unknown = JSON.parse(text);
    if (typeof head === 'object' && head !== null && !Array.isArray(head))
      return head as Record<string, unknown>;
  } catch {
    // Thrown below.
  }
  throw new TreeError('protocol', 'the head of a frame is not an object');
}
