import { randomUUID } from 'node:crypto';
import { homedir, hostname } from 'node:os';
import { type AgentManifest, checkAgentUsers, watchAgentUsers } from '@cde/api/agent.ts';
import type { CallError } from '@cde/api/client.ts';
import { makeAccessCheck } from '@cde/tunnel/auth/access-check.ts';
import { makeCertificate } from '@cde/tunnel/auth/certificate.ts';
import { watchRevocations } from '@cde/tunnel/auth/revocation.ts';
import { type Clock, systemClock } from '@cde/tunnel/clock.ts';
import type { Log } from '@cde/tunnel/log.ts';
import { makeActivity } from './activity/activity.ts';
import { serveTools, type ToolSocket } from './activity/leases/socket.ts';
import { makeOpenTerminals } from './activity/open-terminals.ts';
import { makeWarnings } from './activity/warnings.ts';
import { countOwnTraffic, readInterfaces } from './activity/work/network-traffic.ts';
import { makeWorkSampler } from './activity/work/work.ts';
import { hostKeyPath, readHostKey } from './host-key.ts';
import { makeHosting } from './hosting.ts';
import type { Network } from './network/direct.ts';
import { makePortGuard } from './network/port-guard.ts';
import { isRejection, makeServerClient } from './server/client.ts';
import { makeFetch } from './server/fetch.ts';
import { makeLogShipper } from './server/logs.ts';
import { register } from './server/registration.ts';
import { makeSessions } from './sessions.ts';
import { makeShutdown } from './shutdown.ts';
import { countingUsage } from './stats/home-size.ts';
import { type Reporter, reportStats } from './stats/report.ts';
import { makeStatsCollector } from './stats/stats.ts';
import { findUsageSource } from './stats/usage.ts';

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
/** When a satellite is lost, the agents of all its workspaces refresh their manifest; spread over this time. */
const refreshSpreadMs = 5000;
/** Names of users that are remembered, to say who was active. */
const maxUsernames = 1000;
/** Once at once and twice later, since a replacement may take a while to start. */
const refreshRounds = [0, 1, 1];

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
  /** Of users with sessions, oldest first. Tickets name users only by id. */
  const usernames = new Map<string, string>();
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
        print(`cannot register: ${describe(error)}; retrying in ${(waitMs / 1000).toFixed(1)} s`);
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

    let refreshing = false;
    /** The lost satellite may not come back, for example because its server was replaced. */
    async function refreshManifest() {
      if (refreshing) return;
      refreshing = true;
      for (const later of refreshRounds) {
        await clock.sleep((later + clock.random()) * refreshSpreadMs, stopping.signal);
        if (stopping.signal.aborted) return;
        await registration.renew().catch(() => {});
      }
      refreshing = false;
    }

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
      access: makeAccessCheck({
        async ask(users, signal) {
          const reply = await client.call(checkAgentUsers, { body: { users }, signal });
          // Servers of earlier releases send no names.
          for (const [userId, username] of Object.entries(reply.usernames ?? {})) {
            usernames.delete(userId);
            usernames.set(userId, username);
          }
          for (const userId of usernames.keys()) if (usernames.size > maxUsernames) usernames.delete(userId);
          return reply.endUsers;
        },
        onUnavailable: (error) => print(`cannot check access; accepting valid tickets: ${describe(error)}`),
        clock,
      }),
      onUser: (userId) => watch.sessionOpened(userId),
      clock,
      log: tunnelLog,
    });
    // No satellite sees sessions over direct paths, so the agent must end them itself.
    const longPollClient = makeServerClient({
      urls: options.serverUrl,
      token: options.token,
      fetch: makeFetch({ timeoutMs: watchTimeoutMs }),
    });
    const watch = watchRevocations({
      users: hosting.users,
      poll: async (users, signal) =>
        (await longPollClient.call(watchAgentUsers, { body: { users }, signal })).endUsers,
      revoke(userId) {
        print("a user's access was revoked: ended their sessions");
        hosting.endUser(userId);
      },
      signal: stopping.signal,
      clock,
    });
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
    const usage = await findUsageSource();
    const work = makeWorkSampler({
      activity,
      usage,
      // On the server's machine other processes may be visible, and share the control group.
      workspaceId: network.kind === 'whole' ? null : manifest().workspaceId,
      helpers: countingUsage,
      interfaceBytes: network.kind === 'shared' ? () => null : readInterfaces,
      ownTraffic: ownTraffic.bytes,
    });
    const shutdown = makeShutdown({
      client,
      activity,
      work,
      runScript: (script) =>
        runScript({
          ...script,
          name: 'shutdown',
          workspace: manifest(),
          log,
          pool,
          own: tools || undefined,
        }),
      print: printAndLog,
      deliverLog: () => log.deliver(shutdownDeliverMs),
      signal: stopping.signal,
      clock,
    });
    const warnings = makeWarnings({
      workspace: () => manifest().workspace,
      openTerminals,
      activity,
      command: tools?.command,
      reportSoon: () => reporter?.reportSoon(),
    });
    closers.push(warnings.close);
    if (manifest().hasShutdownScript) void shutdown.watch(longPollClient);
    reporter = reportStats({
      work,
      collector: await makeStatsCollector({
        usage,
        home: () => manifest().home,
        memoryLimit: options.memoryLimit ?? null,
        ownVolume: network.kind === 'whole',
        sessions,
        satellites: hosting.satellites,
      }),
      activity,
      client,
      onIdle(idle) {
        warnings.update(idle);
        if (idle.shutdown) shutdown.handle(idle.shutdown);
      },
      isUrgent: () => shutdown.isPending,
      everyMs: () => manifest().statsEveryMs,
      satellites: { current: hosting.satellites, onChange: hosting.onChange },
      signal: stopping.signal,
      onFailure(error) {
        // Registering shows whether a newer build has replaced this agent.
        if (isRejection(error)) void registration.renew().catch(() => {});
      },
      onSatellites(now) {
        // By URL: each replica of the server names its embedded satellite differently.
        const addresses = (list: { url: string }[]) => JSON.stringify(list.map(({ url }) => url).sort());
        if (addresses(now) !== addresses(manifest().satellites)) void registration.renew().catch(() => {});
      },
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

function describe(error: unknown): string {
  const { message, body } = error as Error & { body?: { detail?: string } };
  return body?.detail ? `${message} (${body.detail})` : message;
}
