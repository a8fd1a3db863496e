import type { Session } from '@cde/tunnel/session/session.ts';
import { cacheKeyObjects, coalesceWrites, sshCiphers } from '@cde/tunnel/streams/ssh2.ts';
import type { Client } from 'ssh2';
import type { Context } from '../command/context.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure, toFailure } from '../failure/failure.ts';
import { type Opening, type OpeningOptions, openWorkspaceSession } from './opening.ts';

/** A client of a workspace's SSH server in this process: for file transfers and reverse forwards. */
export interface OpenSsh {
  client: Client;
  /** Rejects with a Failure when the connection is over, for whatever reason but `close`. */
  ended: Promise<never>;
  close(): void;
}

/** How long the session's end may take to say why, after SSH has noticed that it is cut off. */
const reasonMs = 300;

/** Opens a session and speaks SSH over it; `close` ends both. */
export async function openSshClient(
  context: Context,
  workspace: string,
  options: OpeningOptions,
): Promise<OpenSsh> {
  const { session, opening } = await openWorkspaceSession(context, workspace, null, options);
  try {
    const ssh = await connectSsh(context, session, opening);
    return {
      ...ssh,
      close() {
        ssh.close();
        session.close();
      },
    };
  } catch (error) {
    session.close();
    throw error;
  }
}

/** Speaks SSH over a session that stays its owner's. The host key must be the one that the server vouches for. */
export async function connectSsh(
  { signal }: Pick<Context, 'signal'>,
  session: Session,
  opening: Pick<Opening, 'sshHostKey' | 'username'>,
): Promise<OpenSsh> {
  const { default: ssh2 } = await import('ssh2');
  const client = new ssh2.Client();
  const pinned = Buffer.from(opening.sshHostKey.split(/\s+/)[1] ?? '', 'base64');
  let closed = false;
  let fail: (error: unknown) => void;
  const ended = new Promise<never>((_, reject) => {
    fail = reject;
  });
  ended.catch(() => {});
  const abort = () => fail(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  const close = () => {
    closed = true;
    signal.removeEventListener('abort', abort);
    client.destroy();
  };
  void session.closed.then(({ error }) => {
    if (!closed) fail(toFailure(error ?? connectionLost()));
  });
  const broke = (error?: Error) => {
    // The session, where it ended, says why; SSH only says that it did.
    setTimeout(() => !closed && fail(error ? connectionLost(error) : connectionLost()), reasonMs).unref();
  };
  cacheKeyObjects(client);
  client.on('error', broke);
  client.once('close', () => broke());
  try {
    const sock = await session.open({ kind: 'ssh' }, { eager: true });
    coalesceWrites(sock);
    await Promise.race([
      ended,
      new Promise<void>((resolve) => {
        client.once('ready', resolve);
        client.connect({
          sock: sock as never,
          username: opening.username,
          algorithms: { cipher: [...sshCiphers] },
          hostVerifier: (key: Buffer) => key.equals(pinned),
          // A silence is an outage, which the session survives.
          readyTimeout: 0,
          keepaliveInterval: 0,
        });
      }),
    ]);
  } catch (error) {
    close();
    throw error;
  }
  return { client, ended, close };
}

function connectionLost(cause?: Error): Failure {
  return new Failure('ssh-broken', 'The SSH connection to the workspace broke.', {
    exitCode: exitCodes.unreachable,
    detail: cause?.message,
    hint: 'Try again.',
    cause,
  });
}
