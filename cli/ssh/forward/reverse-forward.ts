import { setTimeout as delay } from 'node:timers/promises';
import { connectTarget, splice } from '@cde/tunnel/streams/targets.ts';
import type { Client } from 'ssh2';
import type { Context } from '../../command/context.ts';
import { exitCodes } from '../../failure/exit-codes.ts';
import { Failure, toFailure } from '../../failure/failure.ts';
import type { OpenedSession } from '../sessions.ts';
import { connectSsh } from '../ssh-client.ts';
import type { ReverseSpec } from './port-specs.ts';

/** The workspace's own loopback and nothing else: neither its network nor its neighbours reach this machine. */
const bindAddress = 'localhost';
/** Between two attempts to listen again: the agent may not have noticed yet that the old session is over. */
const againMs = 1_000;

export interface Reversed {
  spec: ReverseSpec;
  /** The workspace's port. */
  remote: number;
}

/**
 * Lets ports of the workspace lead to this machine, over one session. Resolves once it listens; rejects with
 * `port-unavailable` when it may not. `onFailure` hears what went wrong with a connection from there.
 */
async function listenInWorkspace(
  context: Context,
  workspace: string,
  specs: ReverseSpec[],
  { session, opening }: OpenedSession,
  onFailure: (spec: ReverseSpec, error: unknown) => void,
): Promise<Reversed[]> {
  const { client, ended, close } = await connectSsh(context, session, opening);
  ended.catch(close);
  const open: Reversed[] = [];
  client.on('tcp connection', ({ destPort }, accept, reject) => {
    const reversed = open.find(({ remote }) => remote === destPort);
    if (!reversed) return reject();
    const { spec } = reversed;
    // Only where it can be connected is it accepted: a program there then sees what it would see here.
    connectTarget({ kind: 'tcp', host: spec.host, port: spec.local }).then(
      (socket) => splice(socket, accept()),
      (error) => {
        reject();
        onFailure(spec, error);
      },
    );
  });
  try {
    for (const spec of specs)
      open.push({ spec, remote: await Promise.race([bind(client, workspace, spec.remote), ended]) });
  } catch (error) {
    close();
    throw error;
  }
  return open;
}

const bind = (client: Client, workspace: string, port: number) =>
  new Promise<number>((resolve, reject) =>
    client.forwardIn(bindAddress, port, (error, bound) => {
      if (!error) return resolve(port || bound);
      reject(
        new Failure('port-unavailable', `${workspace} cannot listen on its port ${port}.`, {
          exitCode: exitCodes.conflict,
          detail: 'It is in use there, or needs rights.',
          hint: `Take another port of the workspace: 0:LOCAL takes any free one.`,
          cause: error,
        }),
      );
    }),
  );

/**
 * The same for each session that `port-forward` opens: `serve` is to be called with each. The first one rejects when
 * it cannot listen; after that it is tried until the session ends. Ports that were chosen freely stay the same.
 */
export function maintainReverseForward(
  context: Context,
  workspace: string,
  specs: ReverseSpec[],
  onFailure: (spec: ReverseSpec, error: unknown) => void,
): { first: Promise<Reversed[]>; serve(opened: OpenedSession): void } {
  let resolveFirst: (open: Reversed[]) => void;
  let rejectFirst: (error: unknown) => void;
  const first = new Promise<Reversed[]>((resolve, reject) => {
    resolveFirst = resolve;
    rejectFirst = reject;
  });
  first.catch(() => {});
  let known: Reversed[] | null = null;

  async function serve(opened: OpenedSession): Promise<void> {
    let over = false;
    void opened.session.closed.then(() => {
      over = true;
    });
    // The same ports as before, though they were any at first; but they are told by what was asked for.
    const wanted = known?.map(({ spec, remote }) => ({ ...spec, remote })) ?? specs;
    for (let told = false; !over && !context.signal.aborted; ) {
      try {
        const open = await listenInWorkspace(context, workspace, wanted, opened, onFailure);
        known ??= open;
        return resolveFirst(known);
      } catch (error) {
        if (!known) return rejectFirst(error);
        if (over || context.signal.aborted) return;
        if (!told) context.out.note(`${toFailure(error).message} It is tried again.`);
        told = true;
        await delay(againMs);
      }
    }
  }
  return { first, serve: (opened) => void serve(opened) };
}
