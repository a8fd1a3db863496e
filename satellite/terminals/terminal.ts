import { accessRevokedCloseCode, TerminalMessage, type TerminalSize } from '@cde/api/events.ts';
import {
  holdReading,
  isRejected,
  policyViolation,
  rejectSocket,
  releaseReading,
  type SocketBudget,
} from '@cde/tunnel/network/socket-limits.ts';
import type { Session } from '@cde/tunnel/session/session.ts';
import { cacheKeyObjects, coalesceWrites, sshCiphers } from '@cde/tunnel/streams/ssh2.ts';
import type { ClientChannel } from 'ssh2';
import type { WebSocket } from 'ws';

/** The shell is paused while more than this is buffered for the browser. */
const highWater = 512 * 1024;
/** Input buffered while the shell opens. */
const maxEarlyBytes = 64 * 1024;
/** A repeating key sends 50 messages a second and a mouse about 200; pastes are split into pieces of 64 KiB. */
export const terminalBudget: SocketBudget = { frames: { perSecond: 1_000, burst: 5_000 } };

/**
 * Connects a browser's terminal to a shell: opens a session with the agent, SSH inside it and a shell inside that. Used
 * by the server and by satellites. The caller has limited the socket to `terminalBudget`. Ends with the socket, the
 * shell or the session. The signal passed to `openSession` is aborted when the browser disconnects.
 */
export function proxyTerminal(
  socket: WebSocket,
  options: {
    size: TerminalSize;
    /** The terminal's name, by which a later connection finds the same shell: `CDE_TERMINAL` of agent/ssh. */
    terminal: string | undefined;
    openSession: (gone: AbortSignal) => Promise<{ session: Session; username: string }>;
    /** The message shown to the user. */
    describeError: (error: unknown) => string;
  },
): void {
  const { terminal } = options;
  const size = { ...options.size };
  const send = (message: TerminalMessage) =>
    socket.readyState === socket.OPEN && socket.send(JSON.stringify(message));
  let session: Session | null = null;
  let shell: ClientChannel | null = null;
  const early: Buffer[] = [];
  let earlyBytes = 0;
  /** Input of this event-loop turn, sent in one SSH packet. */
  let pendingInput: Buffer[] = [];
  let resized = false;
  const end = (code: number | null, message: string) => {
    send({ type: 'exit', code, message });
    socket.close(1000);
    session?.close();
  };
  /** Deferred, so that the session's own reason for ending is reported if there is one. */
  const endSoon = (message: string) => setImmediate(end, null, message);
  const gone = new AbortController();
  socket.on('close', () => {
    gone.abort();
    shell?.close();
    session?.close();
  });
  const flushInput = () => {
    const input = pendingInput;
    pendingInput = [];
    if (resized) shell?.setWindow(size.rows, size.cols, 0, 0);
    resized = false;
    // The rest waits in the browser until the shell has read this.
    if (input.length > 0 && shell && !shell.write(Buffer.concat(input))) holdReading(socket, 'backpressure');
  };
  const scheduleFlush = () => {
    if (pendingInput.length === 0 && !resized) setImmediate(flushInput);
  };
  socket.on('message', (data: Buffer, binary: boolean) => {
    // A rejected socket may take time to close; its input is no longer allowed.
    if (socket.readyState !== socket.OPEN || isRejected(socket)) return;
    if (binary && shell) {
      scheduleFlush();
      pendingInput.push(data);
      return;
    }
    if (binary) {
      early.push(data);
      earlyBytes += data.length;
      if (earlyBytes >= maxEarlyBytes) holdReading(socket, 'backpressure');
      return;
    }
    const message = TerminalMessage.safeParse(safeJson(data));
    if (!message.success || message.data.type !== 'resize')
      return rejectSocket(socket, policyViolation, 'not a message of a terminal');
    size.cols = message.data.cols;
    size.rows = message.data.rows;
    scheduleFlush();
    resized = true;
  });

  const open = async () => {
    // Loaded on first use: most satellites serve no terminals, and it takes 20 MB.
    const { default: ssh2 } = await import('ssh2');
    const opened = await options.openSession(gone.signal);
    session = opened.session;
    void session.closed.then(({ reason, error }) => {
      if (reason === 'access-ended') socket.close(accessRevokedCloseCode, 'sign in again');
      end(null, error ? error.message : 'The session has ended.');
    });
    if (socket.readyState !== socket.OPEN) return session.close();
    const stream = await session.open({ kind: 'ssh' }, { eager: true });
    coalesceWrites(stream);
    const client = new ssh2.Client();
    cacheKeyObjects(client);
    client.on('error', (error) => endSoon(error.message));
    client.on('ready', () => {
      const env = terminal === undefined ? {} : { env: { CDE_TERMINAL: terminal } };
      client.shell({ term: 'xterm-256color', ...size }, env, (error, channel) => {
        if (error) return end(null, error.message);
        shell = channel;
        send({ type: 'opened' });
        channel.on('drain', () => releaseReading(socket, 'backpressure'));
        if (early.length > 0) channel.write(Buffer.concat(early.splice(0)));
        if (!channel.writableNeedDrain) releaseReading(socket, 'backpressure');
        channel.setWindow(size.rows, size.cols, 0, 0);
        const onData = (data: Buffer) => {
          socket.send(data, () => {
            if (channel.isPaused() && socket.bufferedAmount < highWater / 2) channel.resume();
          });
          if (socket.bufferedAmount > highWater) channel.pause();
        };
        channel.on('data', onData);
        channel.stderr.on('data', onData);
        channel.on('exit', (code: number | null, signal?: string) =>
          end(
            // Never null here: that would make the page look for the shell again.
            code ?? 255,
            signal ? `The shell was ended by ${signal}.` : `The shell has ended (exit code ${code}).`,
          ),
        );
        channel.on('close', () => endSoon('The shell has ended.'));
      });
    });
    // The tunnel has already authenticated the agent by its pinned key, so the SSH host key is not checked.
    client.connect({
      sock: stream,
      username: opened.username,
      authHandler: ['none'],
      algorithms: { cipher: [...sshCiphers] },
      keepaliveInterval: 0,
      readyTimeout: 15_000,
    });
  };
  open().catch((error) => end(null, options.describeError(error)));
}

/** Parses a message as JSON; null if it is invalid. */
export function safeJson(data: Buffer): unknown {
  try {
    return JSON.parse(data.toString('utf8'));
  } catch {
    return null;
  }
}
