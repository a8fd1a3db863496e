import { createServer, type Server, type Socket } from 'node:net';
import { join as joinPath } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Builder, BuilderAddress } from '@cde/api/clusters.ts';
import { splice } from '@cde/tunnel/streams/targets.ts';
import type { Context } from '../command/context.ts';
import { getBuilder } from '../connection/endpoints.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure, toFailure } from '../failure/failure.ts';
import { clean } from '../output/output.ts';
import { maintainSession, type Sessions } from '../ssh/sessions.ts';
import { pathRef } from '../workspaces/reference.ts';

/** A builder whose node pulls its image for the first time takes a while. */
const maxWaitMs = 10 * 60_000;
const pollMs = 1_000;
/**
 * Nodes learn of a ready pod after the API server, and until then lead to the former pod's address, which never answers. Such
 * an attempt takes 10 s, so this has to leave time for several.
 */
const endpointMs = 45_000;
const unreachableCodes = new Set([
  'target-refused',
  'target-not-found',
  'target-timeout',
  'target-unreachable',
]);

/** A local socket that leads to a workspace's builder. */
export interface BuilderTunnel {
  /** `unix:///…/buildkit.sock`: what BUILDKIT_HOST takes. */
  url: string;
  /** Waits until the builder accepts connections; starts the workspace if allowed. Rejects with the reason. */
  ready(): Promise<void>;
  /** Bytes transferred so far in each direction. */
  traffic(): { sentBytes: number; receivedBytes: number };
  close(): void;
}

/**
 * Opens a socket in `folder`, which only this user can enter, that leads to the builder through a session. Nothing is
 * opened or started before the first connection or call of `ready`.
 */
export async function openBuilderTunnel(
  context: Context,
  input: { workspace: string; builder: BuilderAddress; folder: string; start: boolean },
): Promise<BuilderTunnel> {
  const { builder, workspace } = input;
  let sessions: Sessions | null = null;
  let readying: Promise<void> | null = null;
  const sockets = new Set<Socket>();
  const told = new Set<string>();
  const done = { sentBytes: 0, receivedBytes: 0 };

  const session = () => {
    sessions ??= maintainSession(context, workspace, input.start);
    return sessions.get();
  };
  function ready(): Promise<void> {
    if (readying) return readying;
    const attempt = session()
      .catch((error) => {
        // Lets the next request reconnect.
        sessions?.close();
        sessions = null;
        throw error;
      })
      .then(() => waitUntilReady(context, workspace));
    readying = attempt;
    attempt.catch(() => {
      if (readying === attempt) readying = null;
    });
    return attempt;
  }

  async function carry(socket: Socket): Promise<void> {
    await ready();
    const until = performance.now() + endpointMs;
    for (;;)
      try {
        const target = { kind: 'tcp', host: builder.host, port: builder.port } as const;
        return await splice(socket, await (await session()).open(target));
      } catch (error) {
        if (!unreachableCodes.has(toFailure(error).code) || performance.now() > until) throw error;
        await delay(250, undefined, { signal: context.signal });
      }
  }

  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on('error', () => {}); // The local program disconnected.
    socket.once('close', () => {
      sockets.delete(socket);
      done.sentBytes += socket.bytesRead;
      done.receivedBytes += socket.bytesWritten;
    });
    carry(socket).catch((error) => {
      socket.destroy();
      const failure = toFailure(error);
      // Programs retry many times a second, so each reason is printed once.
      if (context.signal.aborted || told.has(failure.code)) return;
      told.add(failure.code);
      context.out.note(`The builder of ${workspace}: ${clean(failure.message)}`);
    });
  });
  const url = await listen(server, input.folder);
  return {
    url,
    ready,
    traffic() {
      const sum = { ...done };
      for (const { bytesRead, bytesWritten } of sockets) {
        sum.sentBytes += bytesRead;
        sum.receivedBytes += bytesWritten;
      }
      return sum;
    },
    close() {
      server.close();
      for (const socket of sockets) socket.destroy();
      sessions?.close();
    },
  };
}

/** A Unix socket, because other users could connect to a port. The tools on Windows do not support it. */
async function listen(server: Server, folder: string): Promise<string> {
  const path = joinPath(folder, 'buildkit.sock');
  const windows = process.platform === 'win32';
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    if (windows) server.listen(0, '127.0.0.1', resolve);
    else server.listen(path, resolve);
  });
  if (!windows) return `unix://${path}`;
  return `tcp://127.0.0.1:${(server.address() as { port: number }).port}`;
}

async function waitUntilReady(context: Context, workspace: string): Promise<void> {
  const client = await context.client();
  const until = performance.now() + maxWaitMs;
  let said = '';
  for (;;) {
    const { ready, reason } = await client.call(getBuilder, { params: { workspace: pathRef(workspace) } });
    if (ready) return;
    if (reason?.fatal || performance.now() > until) throw notReady(workspace, reason);
    const text = reason ? ` ${clean(reason.message)}` : '';
    const note = `Waiting for the builder of ${workspace}.${text}`;
    if (note !== said) context.out.note(note);
    said = note;
    await delay(pollMs, undefined, { signal: context.signal });
  }
}

function notReady(workspace: string, reason: Builder['reason']): Failure {
  return new Failure('builder-not-ready', `The builder of ${workspace} is not ready.`, {
    exitCode: exitCodes.unreachable,
    detail: reason
      ? [reason.message, reason.detail].filter(Boolean).join('\n')
      : 'The cluster does not say why.',
    hint: reason?.hint ?? `Inspect its pod: cde env ${workspace} -- kubectl describe pod builder-0`,
    actions: reason?.actions,
  });
}
