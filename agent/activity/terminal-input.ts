/**
 * What a terminal sends by itself: replies to queries (attributes, status, cursor position, modes, colours, window size),
 * focus events, and mouse movement without a button, which a program can request. None of it is typed by a person: a
 * program that queries the cursor position every second would keep the workspace awake forever.
 */
const sequences =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences consist of them
  /\x1b\[(?:[?>=]?[\d;]*[cn]|\??\d+;\d+(?:;\d+)?R|[IO]|\??[\d;]*\$y|[\d;]*t|\?\d+u|<(?<sgr>\d+);\d+;\d+[Mm]|(?<urxvt>\d+);\d+;\d+M|M(?<x10>[\s\S])[\s\S]{2})|\x1b[P\]_][^\x07\x1b]*(?:\x07|\x1b\\)/g;
/** The beginning of such a sequence at the end of a chunk. */
const unfinished =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences consist of them
  /\x1b(?:\[(?:[?>=<]?[\d;]*\$?|M[\s\S]{0,2})|[P\]_][^\x07\x1b]*\x1b?)$/;

/** Longer than any reply but a clipboard's. */
const maxUnfinished = 4096;
const escapeByte = 0x1b;

/** Returns a function that tells whether a person has typed (part of) a terminal's next bytes. */
export function makeTypedFilter(): (chunk: Buffer) => boolean {
  let carry = '';
  return (chunk) => {
    if (chunk.length === 0) return false;
    if (carry === '' && chunk[0] !== escapeByte) return true;
    const text = carry + chunk.toString('latin1');
    carry = unfinished.exec(text)?.[0] ?? '';
    const complete = text.slice(0, text.length - carry.length);
    if (carry.length > maxUnfinished) {
      carry = '';
      return true;
    }
    return (
      complete.replace(sequences, (sequence, ...rest) => {
        const { sgr, urxvt, x10 } = rest.at(-1) as Record<string, string | undefined>;
        // X10 and urxvt add 32, so that the byte is printable.
        const button = sgr ? Number(sgr) : urxvt ? Number(urxvt) - 32 : x10 ? x10.charCodeAt(0) - 32 : null;
        return button === null || isMovement(button) ? '' : sequence;
      }) !== ''
    );
  };
}

/** Bit 5: movement. The lower two bits: which button, 3 for none. Bit 6: the wheel. */
const isMovement = (button: number) => (button & 32) !== 0 && (button & 3) === 3 && (button & 64) === 0;
