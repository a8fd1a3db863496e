import { randomUUID } from 'node:crypto';
import { homedir, hostname } from 'node:os';
import type { Duplex } from 'node:stream';
import type { AgentManifest } from '@cde/api/agent.ts';
import type { CallError } from '@cde/api/client.ts';
import { makeCertificate } from '@cde/tunnel/certificate.ts';
import { type Clock, systemClock } from '@cde/tunnel/clock.ts';
import { type HostedSession, serveSession } from '@cde/tunnel/host.ts';
import type { Log } from '@cde/tunnel/log.ts';
import { listenRelay, type RelayListener } from '@cde/tunnel/paths/relay.ts';
import { makePipe } from '@cde/tunnel/pipe.ts';
import { connectTarget, type Target } from '@cde/tunnel/targets.ts';
import { hostKeyPath, readHostKey } from './host-key.ts';
import { makeLogShipper } from './logs.ts';
import { type Registration, register } from './registration.ts';
import { isRefusal, makeServerClient } from './server-client.ts';
import { makeSessions } from './sessions.ts';
import type { SshServer } from './ssh/server.ts';
import { makeStatsCollector, reportStats } from './stats.ts';

export interface Agent {
  /** Hangs up the sessions, ends the startup script, sends the last of the log. Takes 3 s at most. */
  stop(): Promise<void>;
}

/** What the last lines of the log may take when the agent is told to end. */
const lastFlushMs = 2000;
/** After a satellite was lost, the agents of all its workspaces ask the server again within this time. */
const askAgainMs = 5000;

/**
 * Starts the agent: registers at the server (for ever, while that is away), listens at the satellites, serves
 * sessions, runs the startup script, reports. Resolves once it is registered and listens.
 */
export async function startAgent(options: {
  serverUrl: string;
  token: string;
  version: string;
  clock?: Clock;
  /** Told what happens, as lines for a person. */
  print: (text: string) => void;
  /** The server will have nothing more to do with this agent (401, 403, 410): end it. */
  onRefused: (error: CallError) => void;
}): Promise<Agent> {
  const { clock = systemClock, print } = options;
  const over = new AbortController();
  const stopping = new AbortController();
  const client = makeServerClient({ urls: options.serverUrl, token: options.token });
  const sessions = makeSessions();
  const log = makeLogShipper({ client, process: randomUUID(), signal: over.signal, clock });
  const say = (text: string) => {
    print(text);
    log.line('agent', 'stderr', text);
  };

  const [certificate, hostKey] = await Promise.all([makeCertificate(), readHostKey(hostKeyPath(homedir()))]);
  let manifest: AgentManifest | undefined;
  const listeners = new Map<string, RelayListener>();
  const hosted = new Set<HostedSession>();
  let registration: Registration;
  let ssh: Promise<SshServer>;

  const tunnelLog: Log = {
    debug() {},
    info() {},
    warn: (fields, message) => print(`${message} ${JSON.stringify(fields)}`),
    error: (fields, message) => print(`${message} ${JSON.stringify(fields)}`),
  };

  /** Listens at the satellites of the manifest, and no longer at others. */
  function listen() {
    const wanted = new Set(manifest!.satellites.map(({ url }) => url));
    for (const [url, listener] of listeners) {
      if (wanted.has(url)) continue;
      listener.close();
      listeners.delete(url);
    }
    for (const { name, url } of manifest!.satellites) {
      if (listeners.has(url) || stopping.signal.aborted) continue;
      listeners.set(
        url,
        listenRelay({
          url,
          listenToken: (asked) => registration.listenToken(asked),
          onPath(path) {
            const session = serveSession({
              pipe: makePipe({ path }),
              tlsKey: certificate.key,
              tlsCert: certificate.cert,
              agentKey: certificate.fingerprint,
              workspaceId: manifest!.workspaceId,
              ticketKeys: () => manifest!.ticketKeys,
              onStream: serveStream,
              log: tunnelLog,
            });
            hosted.add(session);
            void session.closed.then(() => hosted.delete(session));
          },
          onState(connected, reason) {
            if (stopping.signal.aborted) return;
            say(
              connected
                ? `connected to satellite ${name}`
                : `lost satellite ${name}: ${reason?.message ?? 'closed'}`,
            );
            // It may have gone for good, with its server: what the manifest says may be old.
            if (!connected) void askAgain();
          },
          clock,
          log: tunnelLog,
        }),
      );
    }
  }

  let asking = false;
  async function askAgain() {
    if (asking) return;
    asking = true;
    await clock.sleep(clock.random() * askAgainMs, stopping.signal);
    asking = false;
    if (!stopping.signal.aborted) await registration.renew().catch(() => {});
  }

  async function serveStream(target: Target, stream: Duplex): Promise<Duplex | undefined> {
    if (target.kind === 'ssh') {
      const server = await ssh;
      server.serve(stream);
      return undefined;
    }
    const socket = await connectTarget(target);
    const ended = sessions.open('port');
    socket.once('close', ended);
    return socket;
  }

  let retries = 0;
  registration = await register({
    client,
    clock,
    signal: stopping.signal,
    identity: {
      tlsPublicKey: certificate.fingerprint,
      sshHostKey: hostKey.publicKey,
      version: options.version,
      hostname: hostname(),
    },
    onManifest(next) {
      const first = manifest === undefined;
      manifest = next;
      retries = 0;
      if (!first) listen();
    },
    onRefused: options.onRefused,
    onRetry(error, failures, waitMs) {
      // The first one, and then about one a minute.
      if (retries === 0 || failures % 8 === 0) {
        print(`cannot register: ${describe(error)}; trying again in ${(waitMs / 1000).toFixed(1)} s and on`);
      }
      retries = failures;
    },
  });
  print(`registered as ${manifest!.workspace}`);

  // Only now: what a session needs is loaded while the satellite answers.
  const parts = Promise.all([
    import('./ssh/server.ts'),
    import('./ssh/pipes.ts'),
    import('./startup.ts'),
  ]).then(([{ makeSshServer }, { makePipePool }, { serveStartup }]) => {
    const pool = makePipePool();
    const workspace = () => manifest!;
    return {
      pool,
      serveStartup,
      server: makeSshServer({ hostKey: hostKey.privateKey, workspace, sessions, pool }),
    };
  });
  ssh = parts.then(({ server }) => server);
  ssh.catch(() => {});
  listen();
  const { pool, server, serveStartup } = await parts;
  const startup = serveStartup({
    startup: manifest!.startup,
    client,
    workspace: manifest!,
    log,
    pool,
    signal: stopping.signal,
    over: over.signal,
  });
  reportStats({
    collector: await makeStatsCollector({ home: () => manifest!.home, sessions }),
    client,
    everyMs: () => manifest!.statsEveryMs,
    signal: stopping.signal,
    onFailure(error) {
      // The registration tells whether another build has taken over.
      if (isRefusal(error)) void registration.renew().catch(() => {});
    },
  });

  let stopped: Promise<void> | undefined;
  function stop(): Promise<void> {
    stopped ??= (async () => {
      stopping.abort();
      for (const listener of listeners.values()) listener.close();
      server.close();
      for (const session of hosted) session.close('agent-closed');
      await Promise.all([
        log.flush(lastFlushMs),
        Promise.race([startup, clock.sleep(lastFlushMs, over.signal)]),
      ]);
      over.abort();
      pool.close();
    })();
    return stopped;
  }

  return { stop };
}

function describe(error: unknown): string {
  const { message, body } = error as Error & { body?: { detail?: string } };
  return body?.detail ? `${message} (${body.detail})` : message;
}
