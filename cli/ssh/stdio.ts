import { finished } from 'node:stream/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { collectBuffersEarly } from '@cde/tunnel/gc.ts';
import { pipeCoalesced } from '@cde/tunnel/streams/coalesce.ts';
import { type Line, openSharedStream } from '../background/client.ts';
import type { Context } from '../command/context.ts';
import type { ToldIncident } from '../diagnosis/recording.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { toFailure } from '../failure/failure.ts';
import { fromSshHost } from '../workspaces/reference.ts';
import { explainEnd } from './end-reason.ts';
import { takeHandover } from './handover.ts';
import { pinHostKeys } from './known-hosts.ts';
import type { PathChoice } from './opening.ts';

/** How long the workspace may take to close its end after ssh has closed ours. */
const lingerMs = 2_000;
/** The reason for which the agent ends a session follows the end of its streams within this time. */
const reasonMs = 300;

/**
 * Carries SSH between stdin/stdout and a workspace: what ssh runs as its ProxyCommand. Nothing else goes to
 * stdout. It starts a workspace only for a person at a terminal: an editor that reconnects by itself must not wake one that
 * was stopped. The session is the background process's, which others share; with `verbose`, or where there
 * can be no such process, one of its own.
 */
export async function runStdio(
  context: Context,
  host: string,
  { path = 'auto', verbose = false }: { path?: PathChoice | undefined; verbose?: boolean } = {},
): Promise<number> {
  const { reference } = fromSshHost(host);
  const opening = takeHandover(context.env);
  let dismissed = false;
  let opened = false;
  try {
    const open = async (given: string | undefined): Promise<Line> =>
      (verbose ? null : await openSharedStream(context, reference, { path, opening: given })) ??
      (await openLine(context, reference, { path, opening: given, verbose }));
    const line = await open(opening).catch(async (error) => {
      await startForPerson(context, reference, error);
      return open(undefined);
    });
    const { stream } = line;
    // ssh looks the key up under the name that it was given, whichever server that name means today.
    const sshName = host.toLowerCase();
    if (line.hostKey && sshName.endsWith('.cde'))
      await pinHostKeys(context.env, new Map([[sshName, line.hostKey]]));
    collectBuffersEarly({ smallNewSpace: true, smallHeap: true });
    opened = true;
    line.watchIncidents(({ summary }) => context.out.noteInSession(summary));
    context.leaveInterrupts();
    process.stdin.pipe(stream);
    // ssh has exited, so nothing that still arrives is read.
    process.stdin.once('end', () => setTimeout(() => stream.destroy(), lingerMs).unref());
    pipeCoalesced(stream, process.stdout);
    // A half-open stream is of no use to SSH.
    stream.once('end', () => stream.end());
    const ended = finished(stream, { cleanup: true });
    // It can report its end a second time, when nothing waits for it.
    stream.on('error', () => {});
    // ssh ends its ProxyCommand by a signal. The other side is told: a session that just falls silent looks like a drop.
    for (const signal of ['SIGHUP', 'SIGTERM'] as const)
      process.once(signal, () => {
        dismissed = true;
        line.close();
      });
    process.stdin.on('error', () => stream.end());
    try {
      const broke = await ended.then(
        () => null,
        (error: Error) => error,
      );
      // ssh did not end it: a person wants to know who did.
      const why = broke || !process.stdin.readableEnded ? await line.why(broke) : null;
      if (why) throw why;
    } finally {
      process.stdin.destroy();
      line.close();
    }
    return exitCodes.success;
  } catch (error) {
    if (dismissed) return exitCodes.success;
    // Ctrl-C reaches ssh as well, which needs no words of ours about it.
    if (context.signal.aborted) return exitCodes.interrupted;
    const failure = toFailure(error);
    if (opened) context.out.failInSession(await explainEnd(context, reference, failure));
    else context.out.fail(failure);
    return failure.exitCode;
  }
}

/** Starts a stopped workspace if a person has just typed this ssh and wants that; else rejects with the error given. */
async function startForPerson(context: Context, reference: string, error: unknown): Promise<void> {
  const { code } = toFailure(error);
  if (code !== 'workspace-not-running' && code !== 'agent-not-connected') throw error;
  const { askOnTerminal, isTypedSsh } = await import('./person.ts');
  if (!(await isTypedSsh(process.ppid))) throw error;
  const { startWorkspaceFor } = await import('./opening.ts');
  await startWorkspaceFor(context, reference, (question) => askOnTerminal(question, context.signal));
}

/** Over a session of this process. */
async function openLine(
  context: Context,
  reference: string,
  { path, opening, verbose }: { path: PathChoice; opening: string | undefined; verbose: boolean },
): Promise<Line> {
  const { openWorkspaceSession, pathNote, readOpening } = await import('./opening.ts');
  const handed = opening ? readOpening(opening, reference) : null;
  let tell: ((incident: ToldIncident) => void) | undefined;
  const { session, opening: opened } = await openWorkspaceSession(context, reference, handed, {
    path,
    onIncident: (incident) => tell?.(incident),
    ...(verbose && { onChange: (change) => context.out.note(pathNote(change)) }),
  });
  return {
    stream: await session.open({ kind: 'ssh' }, { eager: true }),
    hostKey: opened.sshHostKey,
    watchIncidents(listener) {
      tell = listener;
    },
    async why(broke) {
      if (broke) return broke;
      return (await Promise.race([session.closed, delay(reasonMs, null)]))?.error ?? null;
    },
    close: () => session.close(),
  };
}
