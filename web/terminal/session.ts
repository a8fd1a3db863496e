import { accessRevokedCloseCode, TerminalMessage, type TerminalSize } from '@cde/api/events.ts';
import { type OpenTerminal, terminalPath } from '@cde/api/satellite-terminals.ts';
import { openSocket } from '../client.ts';
import { findWay, type SatelliteWay, serverWay, type Way } from './ways.ts';

/** Why a terminal is no longer connected. `ended`: its program exited, as opposed to a lost connection. */
export interface End {
  ended: boolean;
  /** The user has lost access, so reconnecting cannot succeed. */
  refused?: true;
  words: string;
}

export interface TerminalSession {
  send(bytes: Uint8Array<ArrayBuffer>): void;
  resize(cols: number, rows: number): void;
  close(): void;
}

// Keystrokes and pastes; nobody types more while a terminal opens.
const maxBuffered = 100;
/** Bytes of one message: the server takes larger ones, up to a limit, and what was pasted has none. */
const maxMessageBytes = 64 * 1024;
/** A satellite that has opened no shell by then has none. */
const openWithinMs = 6_000;

/**
 * One terminal over a WebSocket: bytes both ways in binary frames, sizes and the end in text frames. It goes over the
 * satellite that is nearest, or over the server: where none is nearer, where `serverOnly`, and where that satellite opens
 * no shell. `onEnd` is called once, unless `close()` was.
 */
export function openTerminal(options: {
  workspace: string;
  /** By this name the shell is found again. */
  name: string;
  size: () => TerminalSize;
  serverOnly: boolean;
  /** Over which way it goes. `fellBack`: a satellite was tried before. */
  onWay: (way: Way, fellBack: boolean) => void;
  onOpen: () => void;
  onBytes: (bytes: Uint8Array) => void;
  onEnd: (end: End) => void;
}): TerminalSession {
  let socket: WebSocket | null = null;
  /** What is typed goes out: the server keeps it until there is a shell, of a satellite it is not known yet. */
  let takes = false;
  // What is typed while it opens is not lost.
  const early: Uint8Array<ArrayBuffer>[] = [];
  let over = false;
  const end = (reason: End) => {
    if (over) return;
    over = true;
    options.onEnd(reason);
    socket?.close();
  };
  const put = (bytes: Uint8Array<ArrayBuffer>) => {
    for (let at = 0; at < bytes.length; at += maxMessageBytes)
      socket?.send(bytes.subarray(at, at + maxMessageBytes));
  };
  const opened = () => {
    takes = true;
    for (const bytes of early.splice(0)) put(bytes);
    options.onOpen();
  };

  function overServer(): void {
    const { cols, rows } = options.size();
    const path = `/api/v1/workspaces/${encodeURIComponent(options.workspace)}/terminal`;
    connect(openSocket(`${path}?cols=${cols}&rows=${rows}&terminal=${options.name}`), { onopen: opened });
  }

  function overSatellite(way: Way, { url, code }: SatelliteWay): void {
    const fallBack = () => {
      clearTimeout(timer);
      if (over || takes) return;
      socket?.close();
      options.onWay({ satellite: null, measured: way.measured }, true);
      overServer();
    };
    const timer = setTimeout(fallBack, openWithinMs);
    try {
      const first: OpenTerminal = { type: 'open', code, terminal: options.name, ...options.size() };
      connect(new WebSocket(url.replace(/^http/, 'ws') + terminalPath), {
        onopen: () => socket?.send(JSON.stringify(first)),
        onshell() {
          clearTimeout(timer);
          opened();
        },
        instead: () => {
          if (takes) return false;
          fallBack();
          return true;
        },
      });
    } catch {
      // Not even an address that this page may connect to.
      fallBack();
    }
  }

  /** `instead`: asked before the end is told; true: it goes on by other means. */
  function connect(
    made: WebSocket,
    on: { onopen: () => void; onshell?: () => void; instead?: () => boolean },
  ): void {
    socket = made;
    made.binaryType = 'arraybuffer';
    let wasOpen = false;
    const endHere = (reason: End) => {
      if (socket === made && !on.instead?.()) end(reason);
    };
    made.onopen = () => {
      wasOpen = true;
      if (!over && socket === made) on.onopen();
    };
    made.onmessage = ({ data }: MessageEvent<ArrayBuffer | string>) => {
      if (socket !== made) return;
      if (typeof data !== 'string') return options.onBytes(new Uint8Array(data));
      const message = readText(data);
      if (message?.type === 'opened') on.onshell?.();
      if (message?.type === 'exit') endHere({ ended: message.code !== null, words: exitWords(message) });
    };
    made.onclose = (event) => {
      if (event.code === accessRevokedCloseCode)
        endHere({
          ended: false,
          refused: true,
          words: 'You can no longer open this terminal. Sign in again.',
        });
      else if (event.reason) endHere({ ended: false, words: event.reason });
      else if (!wasOpen) endHere({ ended: false, words: 'The server did not open a terminal.' });
      else endHere({ ended: false, words: 'The connection was lost.' });
    };
  }

  if (options.serverOnly) {
    options.onWay(serverWay, false);
    overServer();
  } else
    void findWay(options.workspace).then((way) => {
      if (over) return;
      options.onWay(way, false);
      if (way.satellite) overSatellite(way, way.satellite);
      else overServer();
    });
  return {
    send(bytes) {
      if (takes && socket?.readyState === WebSocket.OPEN) put(bytes);
      else if (!takes && early.length < maxBuffered) early.push(bytes);
    },
    resize(cols, rows) {
      if (takes && socket?.readyState === WebSocket.OPEN)
        socket.send(JSON.stringify({ type: 'resize', cols, rows } satisfies TerminalMessage));
    },
    close() {
      over = true;
      socket?.close();
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
