import type { Duplex } from 'node:stream';
import type { AgentManifest } from '@cde/api/agent.ts';
import type { Clock } from '@cde/tunnel/clock.ts';
import type { TunnelError } from '@cde/tunnel/errors.ts';
import type { Log } from '@cde/tunnel/log.ts';
import { listenRelay, type RelayListener } from '@cde/tunnel/paths/relay.ts';
import { makeReception } from '@cde/tunnel/reception.ts';
import { connectTarget, type Target } from '@cde/tunnel/targets.ts';
import type { Sessions } from './sessions.ts';
import type { SshServer } from './ssh/server.ts';

export interface Hosting {
  /** Listens at the satellites of the manifest, and no longer at others. */
  listen(): void;
  /** Listens nowhere, and tells the clients that the agent has ended their sessions. */
  close(): void;
}

/** Serves sessions that come over the satellites. */
export function makeHosting(options: {
  certificate: { key: string; cert: string; fingerprint: string };
  /** The one of the moment. */
  manifest: () => AgentManifest;
  listenToken: (asked: { stale: boolean }) => Promise<string>;
  ssh: Promise<Pick<SshServer, 'serve'>>;
  sessions: Sessions;
  onState: (satellite: string, connected: boolean, reason: TunnelError | null) => void;
  clock: Clock;
  log: Log;
}): Hosting {
  const { certificate, manifest, clock, log } = options;
  const listeners = new Map<string, RelayListener>();
  let closed = false;
  const reception = makeReception({
    tlsKey: certificate.key,
    tlsCert: certificate.cert,
    agentKey: certificate.fingerprint,
    workspaceId: () => manifest().workspaceId,
    ticketKeys: () => manifest().ticketKeys,
    onStream: serveStream,
    log,
  });

  async function serveStream(target: Target, stream: Duplex): Promise<Duplex | undefined> {
    if (target.kind === 'ssh') {
      (await options.ssh).serve(stream);
      return undefined;
    }
    const socket = await connectTarget(target);
    socket.once('close', options.sessions.open('port'));
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
          listenToken: options.listenToken,
          onPath: reception.accept,
          onState: (connected, reason) => {
            if (!closed) options.onState(name, connected, reason);
          },
          clock,
          log,
        });
        listeners.set(url, listener);
      }
    },
    close() {
      closed = true;
      for (const listener of listeners.values()) listener.close();
      reception.close('agent-closed');
    },
  };
}
