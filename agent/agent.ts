import { randomUUID } from 'node:crypto';
import { homedir, hostname } from 'node:os';
import type { AgentManifest } from '@cde/api/agent.ts';
import type { CallError } from '@cde/api/client.ts';
import { makeCertificate } from '@cde/tunnel/auth/certificate.ts';
import { type Clock, systemClock } from '@cde/tunnel/clock.ts';
import type { Log } from '@cde/tunnel/log.ts';
import { makeUserCheck, watchUsers } from './access.ts';
import { makeActivity } from './activity/activity.ts';
import { serveTools, type ToolSocket } from './activity/leases/socket.ts';
import { makeOpenTerminals } from './activity/open-terminals.ts';
import { countOwnTraffic } from './activity/work/network-traffic.ts';
import { hostKeyPath, readHostKey } from './host-key.ts';
import { makeHosting } from './hosting.ts';
import type { Network } from './network/direct.ts';
import { makePortGuard } from './network/port-guard.ts';
import { startReporting } from './reporting.ts';
import { describeFailure, makeServerClient } from './server/client.ts';
import { makeFetch } from './server/fetch.ts';
import { makeLogShipper } from './server/logs.ts';
import { makeManifestRefresh } from './server/manifest-refresh.ts';
import { register } from './server/registration.ts';
import { makeSessions } from './sessions.ts';
import type { Reporter } from './stats/report.ts';
import { Usernames } from './usernames.ts';

export interface Agent {
  /** Resolves once it is registered and running, or was stopped meanwhile. Rejects if it cannot start. */
  start(): Promise<void>;
  /** Ends the sessions and the startup script and sends the rest of the log. Takes at most 3 s. */
  stop(): Promise<void>;
}

/** How long the rest of the log may take at shutdown. */
const finalFlushTimeoutMs = 2000;
/** How long a server that does not accept the log delays the answer to a stop request. The server waits twice as long. */
const shutdownDeliverMs = 5000;
/** The server holds the long poll for revoked users for 25 s; tunnel/auth/revocation.ts times out before this. */
const watchTimeoutMs = 45_000;

/**
 * Makes the agent: it registers at the server (retrying while that is unreachable), listens at the satellites, serves
 * sessions, runs the startup script and reports statistics.
 */
export function makeAgent(options: {
  serverUrl: string;
  token: string;
  version: string;
  network?: Network;
  /** In bytes, if the agent cannot see its own control group. */
  memoryLimit?: number | null;
  clock?: Clock;
  /** Receives messages for people. */
  print: (text: string) => void;
  /** The server permanently rejects this agent (401, 403, 410), so it must end. */
  onRejected: (error: CallError) => void;
}): Agent {
  const { clock = systemClock, print, network = { kind: 'whole' } } = options;
  /** Aborted when the agent begins to stop: nothing new is started. */
  const stopping = new AbortController();
  /** Aborted when it has stopped: nothing more is sent. */
  const ended = new AbortController();
  const client = makeServerClient({ urls: options.serverUrl, token: options.token });
  const sessions = makeSessions();
  const activity = makeActivity();
  const openTerminals = makeOpenTerminals();
  const ownTraffic = countOwnTraffic();
  const usernames = new Usernames();
  const guard = makePortGuard({ shared: network.kind === 'shared', serverUrls: options.serverUrl });
  const log = makeLogShipper({ client, process: randomUUID(), signal: ended.signal, clock });
  const tunnelLog: Log = {
    debug() {},
    info() {},
    warn: (fields, message) => print(`${message} ${JSON.stringify(fields)}`),
    error: (fields, message) => print(`${message} ${JSON.stringify(fields)}`),
  };
  /** Called in order at shutdown. */
  const closers: (() => void | Promise<void>)[] = [ownTraffic.close];
  let startup: Promise<void> | undefined;
  let reporter: Reporter | undefined;
  let stopped: Promise<void> | undefined;

  function printAndLog(text: string) {
    print(text);
    log.line('agent', 'stderr', text);
  }

  async function close(): Promise<void> {
    const closing = closers.map(async (each) => each());
    for (const { reason } of (await Promise.allSettled(closing)) as Partial<PromiseRejectedResult>[])
      if (reason) print(`could not end cleanly: ${reason.message}`);
  }

  async function start(): Promise<void> {
    const keys = [makeCertificate(), readHostKey(hostKeyPath(homedir()))] as const;
    const [certificate, hostKey] = await Promise.all(keys);
    let listen = () => {};
    const registration = await register({
      client,
      clock,
      signal: stopping.signal,
      identity: {
        tlsPublicKey: certificate.fingerprint,
        sshHostKey: hostKey.publicKey,
        version: options.version,
        hostname: hostname(),
      },
      onManifest: () => listen(),
      onRejected: options.onRejected,
      onRetry(error, failures, waitMs) {
        // The first failure, then about one a minute.
        if (failures > 1 && failures % 8 !== 0) return;
        print(`cannot register: ${describeFailure(error)}; retrying in ${(waitMs / 1000).toFixed(1)} s`);
      },
    });
    const manifest = () => registration.manifest;
    print(`registered as ${manifest().workspace}`);

    // Sessions work without it.
    const tools = await serveTools({
      workspaceId: manifest().workspaceId,
      home: manifest().home,
      client,
      activity,
      idle: () => reporter?.idle() ?? null,
      print: printAndLog,
    }).catch((error: Error) => printAndLog(`cannot serve programs of the workspace: ${error.message}`));
    if (tools) {
      closers.push(tools.close);
      if (stopping.signal.aborted) return close();
    }

    // Not earlier: these modules load while the satellite connects.
    const parts = loadParts(hostKey.privateKey, manifest, tools || undefined);
    const ssh = parts.then(({ server }) => server);
    ssh.catch(() => {});

    const refreshManifest = makeManifestRefresh({
      renew: registration.renew,
      signal: stopping.signal,
      clock,
    });
    const hosting = makeHosting({
      certificate,
      manifest,
      direct: { serverUrl: options.serverUrl, network, onFailure: printAndLog },
      listenToken: registration.listenToken,
      ssh,
      sessions,
      activity,
      usernameOf: (userId) => usernames.get(userId),
      guard,
      onState(satellite, connected, reason) {
        if (connected) return printAndLog(`connected to satellite ${satellite}`);
        printAndLog(`lost satellite ${satellite}: ${reason?.message ?? 'closed'}`);
        void refreshManifest();
      },
      access: makeUserCheck({ client, usernames, print, clock }),
      onUser: (userId) => watch.sessionOpened(userId),
      clock,
      log: tunnelLog,
    });
    const longPollClient = makeServerClient({
      urls: options.serverUrl,
      token: options.token,
      fetch: makeFetch({ timeoutMs: watchTimeoutMs }),
    });
    const watch = watchUsers({ longPollClient, hosting, print, signal: stopping.signal, clock });
    closers.push(hosting.close);
    listen = hosting.listen;
    if (!stopping.signal.aborted) listen();

    const { pool, server, serveStartup, runScript } = await parts;
    closers.unshift(server.close);
    closers.push(pool.close);
    if (stopping.signal.aborted) {
      // Stopped before these existed.
      await close();
      return;
    }
    startup = serveStartup({
      startup: manifest().startup,
      client,
      workspace: manifest(),
      log,
      pool,
      own: tools || undefined,
      signal: stopping.signal,
      ended: ended.signal,
    });
    startup.catch((error: Error) => printAndLog(`the startup script cannot be run: ${error.message}`));
    reporter = await startReporting({
      client,
      longPollClient,
      manifest,
      renew: registration.renew,
      hosting,
      sessions,
      activity,
      openTerminals,
      ownTraffic,
      tools: tools || undefined,
      network,
      memoryLimit: options.memoryLimit ?? null,
      runShutdownScript: (script) =>
        runScript({
          ...script,
          name: 'shutdown',
          workspace: manifest(),
          log,
          pool,
          own: tools || undefined,
        }),
      deliverLog: () => log.deliver(shutdownDeliverMs),
      print: printAndLog,
      onClose: (close) => closers.push(close),
      signal: stopping.signal,
      clock,
    });
  }

  async function loadParts(hostKey: string, workspace: () => AgentManifest, own: ToolSocket | undefined) {
    const [{ makeSshServer }, { makePipePool }, { serveStartup }, { runScript }] = await Promise.all([
      import('./ssh/server.ts'),
      import('./ssh/jobs/pipes.ts'),
      import('./startup.ts'),
      import('./script.ts'),
    ]);
    const pool = makePipePool();
    return {
      pool,
      serveStartup,
      runScript,
      server: makeSshServer({ hostKey, workspace, sessions, pool, activity, openTerminals, own, guard }),
    };
  }

  return {
    start,
    stop() {
      stopped ??= (async () => {
        stopping.abort();
        const closing = close();
        const startupEnd = Promise.race([
          startup?.catch(() => {}),
          clock.sleep(finalFlushTimeoutMs, ended.signal),
        ]);
        await Promise.all([log.flush(finalFlushTimeoutMs), startupEnd, closing]);
        ended.abort();
      })();
      return stopped;
    },
  };
}
