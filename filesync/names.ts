/**
 * A file name as text. Names are bytes on Linux; one that is not UTF-8 cannot be carried as text, and replacing what
 * does not fit would name another file. So `text` is null for it, and `shown` has the odd bytes as `\xE9`.
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

/** How many bytes the UTF-8 character at a place takes; 0: there is none. */
function sequenceAt(bytes: Buffer, at: number): number {
  for (let length = 1; length <= 4 && at + length <= bytes.length; length += 1) {
    const part = bytes.subarray(at, at + length);
    const text = part.toString('utf8');
    if (!text.includes('\ufffd') && Buffer.from(text).equals(part)) return length;
    if (text === '\ufffd' && part.equals(Buffer.from('\ufffd'))) return length;
  }
  return 0;
}
