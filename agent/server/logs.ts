import { StringDecoder } from 'node:string_decoder';
import { type AgentLogLine, postAgentLogs } from '@cde/api/agent.ts';
import { type Clock, systemClock } from '@cde/tunnel/clock.ts';
import { isOutage, retryTransient, type ServerClient } from './client.ts';

type Source = AgentLogLine['source'];
type Stream = AgentLogLine['stream'];

export interface LogShipper {
  /** Queues a line, split if it exceeds the server's limit. */
  line(source: Source, stream: Stream, text: string): void;
  /** Splits a stream's bytes into lines. Call `end` to flush an unterminated last line. */
  writer(source: Source, stream: Stream): { write(chunk: Buffer): void; end(): void };
  /** Sends at once. Resolves when the lines queued so far have been acknowledged or dropped, or after `timeoutMs`. */
  flush(timeoutMs: number): Promise<void>;
  /**
   * The same for a report that must not overtake the lines, because those who follow the log stop at it: rejects if the
   * server is unreachable, where the report would not arrive either. `timeoutMs` limits how long a server that rejects
   * the lines delays the report.
   */
  deliver(timeoutMs: number): Promise<void>;
}

/** Limits of the API (api/agent.ts), and of what is useful to people. */
export const logLimits = {
  /** Characters per line. */
  text: 16_384,
  batchLines: 500,
  /** Bytes per batch as JSON; the server accepts a megabyte. */
  batchBytes: 512 * 1024,
  /** Lines per agent process: a script in a loop must not fill the database. */
  lines: 20_000,
  /** Waiting for the server. */
  queuedBytes: 16 * 1024 * 1024,
  /** How long lines are collected before they are sent. */
  delayMs: 100,
};

/**
 * Sends lines to the server in order and exactly once: numbered from 1, in batches that are resent until acknowledged.
 * `process` is a random id of this process.
 */
export function makeLogShipper(options: {
  client: ServerClient;
  process: string;
  signal: AbortSignal;
  clock?: Clock;
  now?: () => Date;
  limits?: Partial<typeof logLimits>;
}): LogShipper {
  const { client, signal, clock = systemClock, now = () => new Date() } = options;
  const limits = { ...logLimits, ...options.limits };
  const queue: { line: AgentLogLine; bytes: number }[] = [];
  /** Those who wait until the line `seq` is no longer queued. */
  const waiters = new Set<{ seq: number; resolve: () => void; onOutage: (error: unknown) => void }>();
  /** Aborted to end the pause before the next attempt. */
  let pause = new AbortController();
  let seq = 0;
  let queuedBytes = 0;
  let omitted = 0;
  let sending = false;
  let timer: NodeJS.Timeout | undefined;

  function add(source: Source, stream: Stream, text: string) {
    seq += 1;
    const line: AgentLogLine = { seq, at: now().toISOString(), source, stream, text };
    const bytes = Buffer.byteLength(JSON.stringify(line)) + 1;
    queue.push({ line, bytes });
    queuedBytes += bytes;
    if (sending) return;
    if (queue.length >= limits.batchLines) void send();
    else timer ??= setTimeout(() => void send(), limits.delayMs);
  }

  function addLine(source: Source, stream: Stream, text: string) {
    if (seq >= limits.lines) return;
    if (seq === limits.lines - 1) {
      add('agent', 'stderr', `The log ends here: it has more than ${limits.lines} lines.`);
      return;
    }
    if (queuedBytes > limits.queuedBytes) {
      omitted += 1;
      return;
    }
    if (omitted > 0) {
      add('agent', 'stderr', `${omitted} lines are missing here: the server was unreachable or too slow.`);
      omitted = 0;
      addLine(source, stream, text);
      return;
    }
    add(source, stream, text);
  }

  function line(source: Source, stream: Stream, text: string) {
    // PostgreSQL's text type does not allow NUL.
    let rest = text.replaceAll('\0', '\uFFFD');
    while (rest.length > limits.text) {
      // Do not split a surrogate pair.
      const cut = isHighSurrogate(rest.charCodeAt(limits.text - 1)) ? limits.text - 1 : limits.text;
      addLine(source, stream, rest.slice(0, cut));
      rest = rest.slice(cut);
    }
    addLine(source, stream, rest);
  }

  async function send(): Promise<void> {
    clearTimeout(timer);
    timer = undefined;
    if (sending) return;
    sending = true;
    while (queue.length > 0 && !signal.aborted) {
      const batch: AgentLogLine[] = [];
      let bytes = 0;
      for (const item of queue) {
        if (
          batch.length === limits.batchLines ||
          (batch.length > 0 && bytes + item.bytes > limits.batchBytes)
        ) {
          break;
        }
        batch.push(item.line);
        bytes += item.bytes;
      }
      try {
        await retryTransient(
          () => client.call(postAgentLogs, { body: { process: options.process, lines: batch }, signal }),
          {
            signal,
            clock: {
              ...clock,
              sleep: (ms) => clock.sleep(ms, AbortSignal.any([signal, pause.signal])),
            },
            onRetry(error) {
              if (isOutage(error)) for (const waiter of waiters) waiter.onOutage(error);
            },
          },
        );
      } catch {
        // Rejected permanently, or the agent is stopping.
      }
      queue.splice(0, batch.length);
      queuedBytes -= bytes;
      settle(queue[0]?.line.seq ?? Number.POSITIVE_INFINITY);
    }
    sending = false;
    if (signal.aborted) settle(Number.POSITIVE_INFINITY);
  }

  /** Resolves those who wait for lines before `seq`. */
  function settle(firstQueued: number) {
    for (const waiter of waiters) if (waiter.seq < firstQueued) waiter.resolve();
  }

  /** Resolves when the lines queued so far are no longer queued, or after `timeoutMs`. */
  async function sendQueued(timeoutMs: number, onOutage: 'wait' | 'reject'): Promise<void> {
    if (queue.length === 0) return;
    let timeout: NodeJS.Timeout | undefined;
    let leave = () => {};
    const settled = new Promise<void>((resolve, reject) => {
      const waiter = { seq, resolve, onOutage: onOutage === 'reject' ? reject : () => {} };
      waiters.add(waiter);
      leave = () => waiters.delete(waiter);
      timeout = setTimeout(resolve, timeoutMs);
    });
    pause.abort();
    pause = new AbortController();
    void send();
    await settled.finally(() => {
      clearTimeout(timeout);
      leave();
    });
  }

  return {
    line,
    writer(source, stream) {
      const decoder = new StringDecoder('utf8');
      let rest = '';
      return {
        write(chunk) {
          const lines = (rest + decoder.write(chunk)).split('\n');
          rest = lines.pop()!;
          for (const text of lines) line(source, stream, text.endsWith('\r') ? text.slice(0, -1) : text);
          while (rest.length > limits.text) {
            line(source, stream, rest.slice(0, limits.text));
            rest = rest.slice(limits.text);
          }
        },
        end() {
          rest += decoder.end();
          if (rest !== '') line(source, stream, rest);
          rest = '';
        },
      };
    },
    flush: (timeoutMs) => sendQueued(timeoutMs, 'wait'),
    deliver: (timeoutMs) => sendQueued(timeoutMs, 'reject'),
  };
}

function isHighSurrogate(unit: number): boolean {
  return unit >= 0xd800 && unit <= 0xdbff;
}
