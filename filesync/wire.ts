import type { Duplex } from 'node:stream';
import { TreeError } from './tree.ts';

/**
 * What goes through a stream of the kind `files`: frames of a head (JSON) and a body (bytes), each with its length in
 * four bytes before it. The client asks with `{id, op, …}`; the agent answers with any number of
 * `{id, part, …}` and one `{id, ok}` or `{id, error}`, in the order of the questions but for `write`, whose answer may
 * come after later ones', and says `{event: 'changed'}` by itself. A question `write` is followed by its `begin`, its
 * `data` and then `end` or `abort`, with nothing in between.
 */
export interface Frame {
  head: Record<string, unknown>;
  body: Buffer;
  /** Bytes that the head took: what it becomes in memory is some times as much. */
  headBytes: number;
}

const maxHeadBytes = 1024 * 1024;
const maxBodyBytes = 1024 * 1024;
const empty = Buffer.alloc(0);

/** Resolves when the stream takes more. Rejects with `disconnected` when it is gone. */
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

/** Splits a stream into frames. Throws `protocol` for what is none; how fast it is read is the reader's pace. */
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
          throw new TreeError('protocol', 'a frame beyond the limit');
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
    // Said below.
  }
  throw new TreeError('protocol', 'a frame that is no object');
}
