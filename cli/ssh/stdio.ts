import { finished } from 'node:stream/promises';
import { setTimeout as delay } from 'node:timers/promises';
import type { Context } from '../context.ts';
import { exitCodes } from '../exit-codes.ts';
import { toFailure } from '../failure.ts';
import { fromSshHost } from '../workspaces/reference.ts';
import { openWorkspaceSession, type PathChoice, pathNote, takeHandedDown } from './opening.ts';

/** How long the workspace may take to close its end after ssh has closed ours. */
const lingerMs = 2_000;
/** The reason for which the agent ends a session follows the end of its streams within this time. */
const reasonMs = 300;

/**
 * Carries SSH between stdin/stdout and a workspace: what ssh runs as its ProxyCommand. Nothing else goes to
 * stdout. It never starts a workspace: an editor that reconnects by itself must not wake one that was
 * stopped on purpose.
 */
export async function runStdio(
  context: Context,
  host: string,
  { path, verbose = false }: { path?: PathChoice | undefined; verbose?: boolean } = {},
): Promise<number> {
  const reference = fromSshHost(host);
  let dismissed = false;
  try {
    const { session } = await openWorkspaceSession(
      context,
      reference,
      takeHandedDown(context.env, reference),
      { ...(path && { path }), ...(verbose && { onChange: (change) => context.out.note(pathNote(change)) }) },
    );
    context.leaveInterrupts();
    const stream = await session.open({ kind: 'ssh' }, { eager: true });
    process.stdin.pipe(stream);
    // ssh is gone: whatever the other end still makes of it, nobody reads it.
    process.stdin.once('end', () => setTimeout(() => stream.destroy(), lingerMs).unref());
    stream.pipe(process.stdout);
    // A half-open stream is of no use to SSH.
    stream.once('end', () => stream.end());
    const ended = finished(stream, { cleanup: true });
    // It may report its end a second time, when nobody waits for it any more.
    stream.on('error', () => {});
    // ssh ends its ProxyCommand by a signal. The other side is told: a session that just falls silent looks like a drop.
    for (const signal of ['SIGHUP', 'SIGTERM'] as const)
      process.once(signal, () => {
        dismissed = true;
        session.close();
      });
    process.stdin.on('error', () => stream.end());
    try {
      await ended;
      // ssh did not end it: a person wants to know who did.
      if (!process.stdin.readableEnded) {
        const why = await Promise.race([session.closed, delay(reasonMs, null)]);
        if (why?.error) throw why.error;
      }
    } finally {
      process.stdin.destroy();
      session.close();
    }
    return exitCodes.success;
  } catch (error) {
    if (dismissed) return exitCodes.success;
    // Ctrl-C reaches ssh as well, which needs no words of ours about it.
    if (context.signal.aborted) return exitCodes.interrupted;
    const failure = toFailure(error);
    context.out.fail(failure);
    return failure.exitCode;
  }
}
