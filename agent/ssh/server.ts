import './protocol/packet-limit-hook.ts';
import type { Duplex } from 'node:stream';
import { cacheKeyObjects, coalesceWrites } from '@cde/tunnel/streams/ssh2.ts';
import type { Connection } from 'ssh2';
import ssh2 from 'ssh2';
import type { Activity } from '../activity/activity.ts';
import { makeForwardObserver } from '../activity/forwards.ts';
import type { OpenTerminals } from '../activity/open-terminals.ts';
import { noPortGuard, type PortGuard } from '../network/port-guard.ts';
import type { Sessions } from '../sessions.ts';
import type { OwnTools, Workspace } from './environment.ts';
import { type ForwardedAgent, forwardAgent } from './forwarding/agent-forward.ts';
import { serveForwards } from './forwarding/forward.ts';
import type { PersistentTerminals } from './jobs/persistent-terminals.ts';
import type { PipePool } from './jobs/pipes.ts';
import { algorithms, serverIdent } from './protocol/algorithms.ts';
import { hookRequests, trackRequests } from './protocol/requests.ts';
import { disableServerKeepalive, streamOf } from './protocol/ssh2-internals.ts';
import { serveSession } from './session.ts';

export interface SshServer {
  /** Serves SSH on a stream that the tunnel has already authorized. `username`: whose it is, if that is known. */
  serve(stream: Duplex, username?: () => string | undefined): void;
  /** Ends all sessions. */
  close(): void;
}

/**
 * Makes the workspace's SSH server. It does not listen; the tunnel passes streams to it. It accepts every user without
 * authentication, since the tunnel has checked the client's ticket. `hostKey` is a private key in OpenSSH format;
 * `workspace` is called for each session.
 */
export function makeSshServer(options: {
  hostKey: string;
  workspace: () => Workspace;
  sessions: Sessions;
  pool: PipePool;
  activity: Activity;
  /** Named in the environment of sessions. */
  own?: OwnTools | undefined;
  openTerminals: OpenTerminals;
  guard?: PortGuard;
}): SshServer {
  disableServerKeepalive();
  hookRequests();
  const { pool, activity, openTerminals } = options;
  const usernames = new WeakMap<Duplex, () => string | undefined>();
  const connections = new Set<() => void>();
  const streams = new Set<Duplex>();
  let persistent: Promise<PersistentTerminals> | undefined;
  const persistentTerminals = () => {
    persistent ??= import('./jobs/persistent-terminals.ts').then(
      ({ makePersistentTerminals: makeKeptTerminals }) => makeKeptTerminals(),
    );
    return persistent;
  };

  function serveConnection(connection: Connection) {
    const open = new Set<{ hangUp(): void }>();
    let agent: Promise<ForwardedAgent> | undefined;
    const username = usernames.get(streamOf(connection)) ?? (() => undefined);
    const forwards = serveForwards(connection, {
      guard: options.guard ?? noPortGuard,
      home: () => options.workspace().home,
      sessions: options.sessions,
      observer: makeForwardObserver({ activity, by: username }),
    });
    cacheKeyObjects(connection);
    trackRequests(connection);
    connection.on('authentication', (context) => context.accept());
    connection.on('session', (accept) => {
      const session = accept();
      const served = serveSession(session, {
        workspace: options.workspace,
        sessions: options.sessions,
        pool,
        activity,
        own: options.own,
        openTerminals,
        username,
        persistentTerminals,
        agentSocket() {
          agent ??= forwardAgent(connection);
          return agent.then(
            ({ path }) => path,
            () => undefined,
          );
        },
      });
      open.add(served);
      session.on('close', () => open.delete(served));
    });
    // The client has disconnected or violated the protocol.
    connection.on('error', () => {});

    function end() {
      if (!connections.delete(end)) return;
      forwards.close();
      for (const session of open) session.hangUp();
      void agent?.then(
        (forwarded) => forwarded.close(),
        () => {},
      );
    }
    connections.add(end);
    connection.on('end', end);
    connection.on('close', end);
  }

  const server = new ssh2.Server(
    {
      hostKeys: [options.hostKey],
      ident: serverIdent,
      algorithms: {
        kex: [...algorithms.kex],
        cipher: [...algorithms.cipher],
        hmac: [...algorithms.hmac],
        compress: [...algorithms.compress],
      },
    },
    serveConnection,
  );

  return {
    serve(stream, username) {
      streams.add(stream);
      if (username) usernames.set(stream, username);
      stream.once('close', () => streams.delete(stream));
      // SSH cannot use a half-open stream, which would stay open forever. A stream that was opened and ended at once may have
      // emitted `end` already.
      stream.once('end', () => stream.end());
      coalesceWrites(stream);
      server.injectSocket(stream as Parameters<typeof server.injectSocket>[0]);
      if (stream.readableEnded) stream.end();
    },
    close() {
      for (const end of [...connections]) end();
      for (const stream of streams) stream.destroy();
      void persistent?.then((terminals) => terminals.close());
    },
  };
}
