/**
 * Decodes a file name. On Linux names are bytes, and replacing invalid UTF-8 would name another file. `text` is null for
 * such a name, and `shown` displays the invalid bytes as `\xE9`.
 */
export function readName(bytes: Buffer): { text: string | null; shown: string } {
  const text = bytes.toString('utf8');
  if (Buffer.from(text).equals(bytes)) return { text, shown: text };
  let shown = '';
  for (let at = 0; at < bytes.length; ) {
    const length = sequenceAt(bytes, at);
    shown +=
      length === 0
        ? `\\x${bytes[at]!.toString(16).padStart(2, '0').toUpperCase()}`
        : bytes.toString('utf8', at, at + length);
    at += Math.max(1, length);
  }
  return { text: null, shown };
}

/** The length of the UTF-8 sequence at an offset; 0 if it is invalid. */
function sequenceAt(bytes: Buffer, at: number): number {
  for (let length = 1; length <= 4 && at + length <= bytes.length; length += 1) {
    const part = bytes.subarray(at, at + length);
    const text = part.toString('utf8');
    if (!text.includes('\ufffd') && Buffer.from(text).equals(part)) return length;
    if (text === '\ufffd' && part.equals(Buffer.from('\ufffd'))) return length;
  }
  return 0;
}
