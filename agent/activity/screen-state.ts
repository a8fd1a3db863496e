/**
 * Tracks a terminal's output to tell when the agent can write a message into it: not while a full-screen program (tmux, vim,
 * htop) uses the alternate screen, and not within an escape sequence or a character. Looks only at escape sequences, so that
 * plain output costs one search.
 */
interface ScreenState {
  output(chunk: Buffer): void;
  readonly isFullScreen: boolean;
  /** Text written now would end up within a sequence. */
  readonly isMidSequence: boolean;
}

const escapeByte = 0x1b;
const bell = 0x07;
/** A mode sequence is far shorter; longer ones are not remembered. */
const maxParameters = 64;
/** The modes that switch to the alternate screen. */
const alternateScreenModes = new Set(['47', '1047', '1049']);
/** What begins a string that a terminator ends: DCS, SOS, OSC, PM, APC. */
const stringStarts = new Set([...'PX]^_'].map((one) => one.charCodeAt(0)));

export function makeScreenState(): ScreenState {
  let state: 'text' | 'escape' | 'csi' | 'string' | 'string-escape' = 'text';
  let parameters = '';
  let isFullScreen = false;
  let isMidCharacter = false;

  function endCsi(final: number) {
    const set = final === 0x68;
    if (!parameters.startsWith('?') || !(set || final === 0x6c)) return;
    if (
      parameters
        .slice(1)
        .split(';')
        .some((mode) => alternateScreenModes.has(mode))
    )
      isFullScreen = set;
  }

  /** Handles one byte outside text and strings. */
  function step(byte: number) {
    if (state === 'csi') {
      if (byte >= 0x40 && byte <= 0x7e) {
        endCsi(byte);
        state = 'text';
      } else if (byte === escapeByte) state = 'escape';
      else if (parameters.length < maxParameters) parameters += String.fromCharCode(byte);
      return;
    }
    if (state === 'string-escape') {
      state = byte === 0x5c ? 'text' : 'escape';
      if (state === 'text') return;
    }
    if (byte === 0x5b) {
      state = 'csi';
      parameters = '';
    } else if (stringStarts.has(byte)) state = 'string';
    // Bytes between ESC and the final byte, as in `ESC ( B`.
    else if (byte === escapeByte || (byte >= 0x20 && byte <= 0x2f)) state = 'escape';
    else {
      // A full reset.
      if (byte === 0x63) isFullScreen = false;
      state = 'text';
    }
  }

  return {
    output(chunk) {
      let at = 0;
      while (at < chunk.length) {
        if (state === 'text') {
          const next = chunk.indexOf(escapeByte, at);
          if (next < 0) break;
          state = 'escape';
          at = next + 1;
        } else if (state === 'string') {
          const next = chunk.indexOf(escapeByte, at);
          const end = chunk.subarray(at, next < 0 ? chunk.length : next).indexOf(bell);
          if (end >= 0) {
            state = 'text';
            at += end + 1;
          } else {
            if (next < 0) break;
            state = 'string-escape';
            at = next + 1;
          }
        } else step(chunk[at++]!);
      }
      if (chunk.length > 0) isMidCharacter = state === 'text' && endsMidCharacter(chunk);
    },
    get isFullScreen() {
      return isFullScreen;
    },
    get isMidSequence() {
      return state !== 'text' || isMidCharacter;
    },
  };
}

/** Whether the last UTF-8 character is incomplete. */
function endsMidCharacter(chunk: Buffer): boolean {
  for (let back = 1; back <= Math.min(3, chunk.length); back += 1) {
    const byte = chunk[chunk.length - back]!;
    if (byte < 0x80) return false;
    if (byte >= 0xc0) return back < (byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2);
  }
  return false;
}
