import { setTimeout as delay } from 'node:timers/promises';
import type { PathChange } from '@cde/tunnel/selection/history.ts';
import type { Session } from '@cde/tunnel/session/session.ts';
import type { Context } from '../command/context.ts';
import { note } from '../command/result.ts';
import type { ToldIncident } from '../diagnosis/recording.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { toFailure } from '../failure/failure.ts';
import { renderEvent } from '../output/render.ts';
import { duration } from '../output/times.ts';
import { type Opening, openWorkspaceSession, type PathChoice, pathNote } from './opening.ts';
import type { Start } from './start-question.ts';

export interface PathInput {
  path?: string | undefined;
  /** Say each change of the path. */
  verbose?: boolean;
}

export interface OpenedSession {
  session: Session;
  opening: Opening;
}

export interface Sessions {
  /** The current session, or a new one if it has ended. */
  get(): Promise<Session>;
  /** Rejects when there can be no more sessions, or at Ctrl-C. */
  ended: Promise<never>;
  close(): void;
}

/** How long to wait before the next attempt while the server cannot be reached. */
const pauseMs = 2_000;

/** Keeps a session with a workspace open: when one ends, the next is opened at once; `onSession` is given each. */
export function maintainSession(
  context: Context,
  reference: string,
  start: Start,
  { path, verbose = false }: PathInput = {},
  onSession: (opened: OpenedSession) => void = () => {},
): Sessions {
  const { out, signal } = context;
  let closed = false;
  let rejectEnded: (error: unknown) => void;
  const ended = new Promise<never>((_, reject) => {
    rejectEnded = reject;
  });
  ended.catch(() => {});
  signal.addEventListener('abort', () => rejectEnded(signal.reason), { once: true });

  const tell = (change: PathChange) => renderEvent(out, { event: 'path', ...change }, note(pathNote(change)));

  const explain = (incident: ToldIncident) =>
    !closed && renderEvent(out, { event: 'incident', ...incident }, note(incident.summary));

  async function open(first: boolean): Promise<Session> {
    for (;;) {
      try {
        const opened = await openWorkspaceSession(context, reference, null, {
          // A reconnect is automatic: it never starts anything.
          start: first ? start : false,
          ...(path && { path: path as PathChoice }),
          ...(verbose && { onChange: tell }),
          onIncident: (incident) => explain(incident),
          onPath(state, reason, afterMs) {
            if (closed || signal.aborted) return;
            if (state === 'lost') out.note(`The connection was lost (${reason.message}); connecting again.`);
            else out.note(`Reconnected after ${duration(afterMs)}. Open connections continue.`);
          },
        });
        const { session } = opened;
        onSession(opened);
        void session.closed.then(({ error }) => {
          if (closed || signal.aborted) return;
          out.note(`The session ended${error ? ` (${error.message})` : ''}; connecting again.`);
          current = open(false);
          current.then(
            () => !closed && out.note('Connected again.'),
            (failed) => rejectEnded(failed),
          );
        });
        return session;
      } catch (error) {
        // Before the first session a person waits for an answer; later the ports are in use, so we keep trying.
        const unreachable = toFailure(error).exitCode === exitCodes.unreachable;
        if (first || closed || signal.aborted || !unreachable) throw error;
        await delay(pauseMs, undefined, { signal });
      }
    }
  }

  let current = open(true);
  return {
    get: () => current,
    ended,
    close() {
      closed = true;
      current.then(
        (session) => session.close(),
        () => {},
      );
    },
  };
}
