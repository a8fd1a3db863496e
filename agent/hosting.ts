import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { AgentManifest, AgentStats } from '@cde/api/agent.ts';
import type { AccessCheck } from '@cde/tunnel/auth/access-check.ts';
import type { Clock } from '@cde/tunnel/clock.ts';
import type { TunnelError } from '@cde/tunnel/errors.ts';
import type { Log } from '@cde/tunnel/log.ts';
import { listenRelay, type RelayListener } from '@cde/tunnel/paths/relay.ts';
import type { SessionContext } from '@cde/tunnel/session/admission.ts';
import { makeSessionRegistry } from '@cde/tunnel/session/registry.ts';
import { pickStunServer } from '@cde/tunnel/session/udp-signaling.ts';
import type { Target } from '@cde/tunnel/streams/targets.ts';
import type { PortVisit } from '@cde/tunnel/streams/visits.ts';
import type { Activity } from './activity/activity.ts';
import { type ForwardObserver, makeForwardObserver } from './activity/forwards.ts';
import { makePortVisits } from './activity/port-visits.ts';
import { type DirectEndpointOptions, isLoopbackOnly, makeDirectEndpoint } from './network/direct.ts';
import { connectInWorkspace } from './network/listen-address.ts';
import { noPortGuard, type PortGuard } from './network/port-guard.ts';
import type { Sessions } from './sessions.ts';
import type { SshServer } from './ssh/server.ts';

export interface Hosting {
  /** Listens where the current manifest says: at its satellites and, if enabled, for direct connections. */
  listen(): void;
  /** Users with open sessions. */
  users(): string[];
  /** Ends the sessions of a user whose access was revoked. */
  endUser(userId: string): void;
  /** The measured round trips to satellites, by which clients choose one. */
  satellites(): AgentStats['satellites'];
  /** `tell` is called whenever that has changed, and now and then when it has not. */
  onChange(observer: () => void): void;
  /** Stops listening, and ends all sessions with a reason for their clients. */
  close(): void;
}

/** Serves sessions over satellites and direct paths. */
export function makeHosting(options: {
  certificate: { key: string; cert: string; fingerprint: string };
  /** The current manifest. */
  manifest: () => AgentManifest;
  listenToken: (url: string, asked: { stale: boolean }) => Promise<string>;
  ssh: Promise<Pick<SshServer, 'serve'>>;
  sessions: Sessions;
  activity: Activity;
  /** The name of a user with a session, if it is known. */
  usernameOf?: (userId: string) => string | undefined;
  guard?: PortGuard;
  onState: (satellite: string, connected: boolean, reason: TunnelError | null) => void;
  /** As makeDirect's; without, no direct connections are taken. */
  direct?: Pick<DirectEndpointOptions, 'serverUrl' | 'network' | 'onFailure'>;
  /** Checks a user's access before the first stream of each session. */
  access?: AccessCheck;
  /** Called when a user's session has begun. */
  onUser?: (userId: string) => void;
  clock: Clock;
  log: Log;
}): Hosting {
  const { certificate, manifest, activity, guard = noPortGuard, clock, log } = options;
  const listeners = new Map<string, RelayListener>();
  /** Who wants to hear of other offers: the sessions, and what reports to the server. */
  const observers = new Set<() => void>();
  let closed = false;
  /** The native module cannot be loaded. */
  let isUdpUnavailable = false;
  const rttOf = (url: string) => listeners.get(url)?.rttMs ?? Number.MAX_VALUE;
  const changed = () => {
    for (const observer of observers) observer();
  };
  const registry = makeSessionRegistry({
    tlsKey: certificate.key,
    tlsCert: certificate.cert,
    agentKey: certificate.fingerprint,
    workspaceId: () => manifest().workspaceId,
    ticketKeys: () => manifest().ticketKeys,
    paths: () => manifest().paths,
    offers: {
      current: () => ({
        paths: manifest().paths.filter((kind) => !(kind === 'direct-udp' && isUdpUnavailable)),
        satellites: manifest().satellites.map(({ name, url }) => ({
          name,
          url,
          rttMs: listeners.get(url)?.rttMs ?? null,
        })),
        addresses: direct?.addresses() ?? [],
      }),
      onChange(observer) {
        observers.add(observer);
        return () => observers.delete(observer);
      },
    },
    udp: {
      // Of the nearest satellite first.
      stun: (attempt) =>
        pickStunServer(
          [...manifest().satellites].sort((a, b) => rttOf(a.url) - rttOf(b.url)),
          attempt,
        ),
      ...(options.direct && isLoopbackOnly(options.direct) && { bindAddress: '127.0.0.1' }),
      onUnavailable(error) {
        if (isUdpUnavailable) return;
        isUdpUnavailable = true;
        options.direct?.onFailure(error.message);
        changed();
      },
    },
    onStream: serveStream,
    onSession: () => options.access?.prefetch(),
    ...(options.access && { authorize: ({ userId }: SessionContext) => options.access!.check(userId) }),
    onOpen: ({ userId }) => options.onUser?.(userId),
    log,
  });
  const direct =
    options.direct &&
    makeDirectEndpoint({ ...options.direct, onPath: registry.accept, onChange: changed, log });

  const portVisits = makePortVisits(activity);
  /** Of each session. */
  const forwardObservers = new WeakMap<SessionContext, ForwardObserver>();
  function forwardObserver(context: SessionContext, by: () => string | undefined): ForwardObserver {
    const observer = forwardObservers.get(context) ?? makeForwardObserver({ activity, by });
    forwardObservers.set(context, observer);
    return observer;
  }

  async function serveStream(
    target: Target,
    stream: Duplex,
    context: SessionContext,
    visit: PortVisit | null,
  ): Promise<Duplex | undefined> {
    const { userId } = context;
    const username = () => options.usernameOf?.(userId);
    if (target.kind === 'ssh') {
      (await options.ssh).serve(stream, username);
      return undefined;
    }
    if (target.kind === 'files') {
      const { serveTree } = await import('@cde/filesync/serve.ts');
      stream.once('close', options.sessions.open('sftp'));
      void serveTree(stream, {
        home: manifest().home,
        onTransfer: () => activity.record('sync', username()),
      });
      return undefined;
    }
    if (target.kind === 'udp') await guard.checkDatagrams(target);
    const socket = await connectInWorkspace(target);
    if (target.kind === 'tcp') {
      await guard.checkSocket(socket as Socket).catch((error) => {
        socket.destroy();
        throw error;
      });
    }
    socket.once('close', options.sessions.open('port'));
    if (!visit) forwardObserver(context, username).observe(stream, socket);
    else if (target.kind === 'tcp') portVisits.opened(target.port, visit, stream, socket);
    return socket;
  }

  return {
    listen() {
      if (closed) return;
      const wanted = new Set(manifest().satellites.map(({ url }) => url));
      for (const [url, listener] of listeners) {
        if (wanted.has(url)) continue;
        listener.close();
        listeners.delete(url);
      }
      for (const { name, url } of manifest().satellites) {
        if (listeners.has(url)) continue;
        const listener = listenRelay({
          url,
          listenToken: (asked) => options.listenToken(url, asked),
          onPath: (path) => registry.accept(path),
          onState: (connected, reason) => {
            if (!closed) options.onState(name, connected, reason);
          },
          onRtt: changed,
          clock,
          log,
        });
        listeners.set(url, listener);
      }
      changed();
      void direct?.apply(manifest().direct);
    },
    users: registry.users,
    endUser: registry.revokeUser,
    satellites: () =>
      [...listeners].flatMap(([url, { rttMs }]) =>
        rttMs === null ? [] : [{ url, rttMs: Math.round(rttMs * 100) / 100 }],
      ),
    onChange: (observer) => void observers.add(observer),
    close() {
      closed = true;
      for (const listener of listeners.values()) listener.close();
      direct?.close();
      registry.close('agent-closed');
    },
  };
}
