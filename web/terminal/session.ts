import { accessRevokedCloseCode, TerminalMessage, type TerminalSize } from '@cde/api/events.ts';
import { type OpenTerminal, terminalPath } from '@cde/api/satellite-terminals.ts';
import { openSocket } from '../client.ts';
import { findRoute, type SatelliteRoute, serverRoute, type TerminalRoute } from './routes.ts';

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

/** Keystrokes and pastes while the terminal opens. */
const maxBuffered = 100;
/** Pastes are split into messages of this size, because the server limits them. */
const maxMessageBytes = 64 * 1024;
/** After this time without a shell, the terminal falls back to the server. */
const openTimeoutMs = 6_000;

/**
 * One terminal over a WebSocket: input and output in binary messages, sizes and the end in text messages. It connects
 * through the nearest satellite, or through the server if none is nearer, if that satellite opens no shell, or with
 * `serverOnly`. `onEnd` is called once, unless `close()` was.
 */
export function openTerminal(options: {
  workspace: string;
  /** A later session with this name finds the same shell. */
  name: string;
  size: () => TerminalSize;
  serverOnly: boolean;
  /** The route that it takes. `fellBack`: a satellite was tried before. */
  onRoute: (route: TerminalRoute, fellBack: boolean) => void;
  onOpen: () => void;
  onBytes: (bytes: Uint8Array) => void;
  onEnd: (end: End) => void;
}): TerminalSession {
  let socket: WebSocket | null = null;
  /** The server buffers input until there is a shell; a satellite accepts it only after that. */
  let acceptsInput = false;
  // Typed while it opens.
  const pendingInput: Uint8Array<ArrayBuffer>[] = [];
  let over = false;
  const end = (reason: End) => {
    if (over) return;
    over = true;
    options.onEnd(reason);
    socket?.close();
  };
  const sendInMessages = (bytes: Uint8Array<ArrayBuffer>) => {
    for (let at = 0; at < bytes.length; at += maxMessageBytes)
      socket?.send(bytes.subarray(at, at + maxMessageBytes));
  };
  const opened = () => {
    acceptsInput = true;
    for (const bytes of pendingInput.splice(0)) sendInMessages(bytes);
    options.onOpen();
  };

  function openOverServer(): void {
    const { cols, rows } = options.size();
    const path = `/api/v1/workspaces/${encodeURIComponent(options.workspace)}/terminal`;
    connect(openSocket(`${path}?cols=${cols}&rows=${rows}&terminal=${options.name}`), { onopen: opened });
  }

  function openOverSatellite(route: TerminalRoute, { url, code }: SatelliteRoute): void {
    const fallBack = () => {
      clearTimeout(timer);
      if (over || acceptsInput) return;
      socket?.close();
      options.onRoute({ satellite: null, measured: route.measured }, true);
      openOverServer();
    };
    const timer = setTimeout(fallBack, openTimeoutMs);
    try {
      const first: OpenTerminal = { type: 'open', code, terminal: options.name, ...options.size() };
      connect(new WebSocket(url.replace(/^http/, 'ws') + terminalPath), {
        onopen: () => socket?.send(JSON.stringify(first)),
        onshell() {
          clearTimeout(timer);
          opened();
        },
        fallBack: () => {
          if (acceptsInput) return false;
          fallBack();
          return true;
        },
      });
    } catch {
      // The page's policy does not allow a connection to this address.
      fallBack();
    }
  }

  /** `fallBack` is called before the end is reported; if it returns true, the session continues on another socket. */
  function connect(
    made: WebSocket,
    on: { onopen: () => void; onshell?: () => void; fallBack?: () => boolean },
  ): void {
    socket = made;
    made.binaryType = 'arraybuffer';
    let wasOpen = false;
    const endHere = (reason: End) => {
      if (socket === made && !on.fallBack?.()) end(reason);
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
      if (message?.type === 'exit') endHere({ ended: message.code !== null, words: exitText(message) });
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
    options.onRoute(serverRoute, false);
    openOverServer();
  } else
    void findRoute(options.workspace).then((route) => {
      if (over) return;
      options.onRoute(route, false);
      if (route.satellite) openOverSatellite(route, route.satellite);
      else openOverServer();
    });
  return {
    send(bytes) {
      if (acceptsInput && socket?.readyState === WebSocket.OPEN) sendInMessages(bytes);
      else if (!acceptsInput && pendingInput.length < maxBuffered) pendingInput.push(bytes);
    },
    resize(cols, rows) {
      if (acceptsInput && socket?.readyState === WebSocket.OPEN)
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

/** The message for an exit: the server's if there is one, else the exit code. */
function exitText(message: { code: number | null; message: string }): string {
  if (message.message) return message.message;
  return message.code === null
    ? 'The terminal was closed.'
    : `The shell ended with exit code ${message.code}.`;
}
