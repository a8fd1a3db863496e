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

/** Beyond this the shell is paused until the browser has taken some: its memory is not ours to fill. */
const highWater = 512 * 1024;
/** Bytes of input kept while the shell opens. */
const maxEarlyBytes = 64 * 1024;
/** A key that repeats sends 50 messages a second, a mouse some 200; a paste is cut into pieces of 64 KiB. */
export const terminalBudget: SocketBudget = { frames: { perSecond: 1_000, burst: 5_000 } };

/**
 * Carries a browser's terminal, at the server and at satellites: a session with the agent, in it SSH, in it a
 * shell. The caller has limited the socket to `terminalBudget`. Takes its messages from now on, and ends with the socket, the shell or the session.
 * `openSession` may reject with whatever `words` has words for; `gone` is aborted when the browser leaves.
 */
export function proxyTerminal(
  socket: WebSocket,
  options: {
    size: TerminalSize;
    /** By its name the shell is found again: `CDE_TERMINAL` of agent/ssh. */
    terminal: string | undefined;
    openSession: (gone: AbortSignal) => Promise<{ session: Session; username: string }>;
    /** What the user is told of an error. */
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
  /** Input of this turn of the event loop: to SSH it goes in one packet, whatever pieces it came in. */
  let pendingInput: Buffer[] = [];
  let resized = false;
  const end = (code: number | null, message: string) => {
    send({ type: 'exit', code, message });
    socket.close(1000);
    session?.close();
  };
  /** What ends with a session says so first; the session knows why. */
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
    // Until the shell has read what was typed or pasted, the rest waits at the browser.
    if (input.length > 0 && shell && !shell.write(Buffer.concat(input))) holdReading(socket, 'backpressure');
  };
  const scheduleFlush = () => {
    if (pendingInput.length === 0 && !resized) setImmediate(flushInput);
  };
  socket.on('message', (data: Buffer, binary: boolean) => {
    // Whoever may no longer is heard no longer, though their end of it may take its time to close.
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
    // Loaded by the first terminal: most satellites never have one, and it takes 20 MB.
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
            // It has ended, by whatever: nobody is to look for it again.
            code ?? 255,
            signal ? `The shell was ended by ${signal}.` : `The shell has ended (exit code ${code}).`,
          ),
        );
        channel.on('close', () => endSoon('The shell has ended.'));
      });
    });
    // Inside the tunnel the agent is known by its pinned key already; SSH's own adds the shell, not trust.
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

/** What a message holds; null where that is not JSON. */
export function safeJson(data: Buffer): unknown {
  try {
    return JSON.parse(data.toString('utf8'));
  } catch {
    return null;
  }
}
