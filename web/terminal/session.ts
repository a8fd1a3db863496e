import { TerminalMessage } from '@cde/api/events.ts';

/** Why a terminal is no longer connected. `ended`: its program did, rather than the connection. */
export interface End {
  ended: boolean;
  /** The user may no longer have it: to come again is of no use. */
  refused?: true;
  words: string;
}

export interface TerminalSession {
  send(bytes: Uint8Array<ArrayBuffer>): void;
  resize(cols: number, rows: number): void;
  close(): void;
}

/** What the server closes with when the session has ended, or the user was suspended. */
const notAdmitted = 4401;
// Key strokes and pastes; a person does not type more in the time that opening takes.
const mostEarly = 100;

/**
 * One terminal over a WebSocket: bytes both ways in binary frames, sizes and the end in text frames.
 * `onEnd` is called once, unless `close()` was.
 */
export function openTerminal(options: {
  url: string;
  onOpen: () => void;
  onBytes: (bytes: Uint8Array) => void;
  onEnd: (end: End) => void;
}): TerminalSession {
  const socket = new WebSocket(options.url);
  socket.binaryType = 'arraybuffer';
  // What is typed while it opens is not lost.
  const early: Uint8Array<ArrayBuffer>[] = [];
  let over = false;
  let opened = false;
  const end = (reason: End) => {
    if (over) return;
    over = true;
    options.onEnd(reason);
    socket.close();
  };
  socket.onopen = () => {
    opened = true;
    for (const bytes of early.splice(0)) socket.send(bytes);
    options.onOpen();
  };
  socket.onmessage = ({ data }: MessageEvent<ArrayBuffer | string>) => {
    if (typeof data !== 'string') return options.onBytes(new Uint8Array(data));
    const message = readText(data);
    if (message?.type === 'exit') end({ ended: message.code !== null, words: exitWords(message) });
  };
  socket.onclose = (event) => {
    if (event.code === notAdmitted)
      end({ ended: false, refused: true, words: 'You may no longer open this terminal. Sign in again.' });
    else if (event.reason) end({ ended: false, words: event.reason });
    else if (!opened) end({ ended: false, words: 'The server did not open a terminal.' });
    else end({ ended: false, words: 'The connection was lost.' });
  };
  return {
    send(bytes) {
      if (socket.readyState === WebSocket.OPEN) socket.send(bytes);
      else if (socket.readyState === WebSocket.CONNECTING && early.length < mostEarly) early.push(bytes);
    },
    resize(cols, rows) {
      if (socket.readyState === WebSocket.OPEN)
        socket.send(JSON.stringify({ type: 'resize', cols, rows } satisfies TerminalMessage));
    },
    close() {
      over = true;
      socket.close();
    },
  };
}

function readText(data: string): TerminalMessage | null {
  try {
    const parsed = TerminalMessage.safeParse(JSON.parse(data));
    return parsed.success ? parsed.data : null;
  } catch {
    return null;
  }
}

/** What to say of an exit: the server's words, else the code. */
function exitWords(message: { code: number | null; message: string }): string {
  if (message.message) return message.message;
  return message.code === null
    ? 'The terminal was closed.'
    : `The shell ended with exit code ${message.code}.`;
}
