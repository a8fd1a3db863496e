import { once } from 'node:events';
import type { ListenClaims, TicketClaims } from '@cde/tunnel/auth/ticket.ts';
import { type Log, silentLog } from '@cde/tunnel/log.ts';
import { dialedMessage } from '@cde/tunnel/paths/relay-protocol.ts';
import type WebSocket from 'ws';
import { bridge } from './bridge.ts';
import { makeClientRegistry } from './clients.ts';
import { makeDraining } from './draining.ts';
import { defaultRelayLimits, type RelayLimits } from './limits.ts';
import { rejectPeer, watchPeer } from './peer.ts';
import { addDial, addSpare } from './waiting.ts';
import {
  makeWorkspaceRegistry,
  type WaitingDial,
  type WaitingSocket,
  type WorkspaceState,
} from './workspaces.ts';

export interface RelayOptions {
  /** The server's public keys (SPKI, base64url), or a function that returns the current ones. */
  ticketKeys: readonly string[] | (() => readonly string[]);
  /** This satellite's id, which listen tokens must name. Null accepts any: before registration, and in tests. */
  id?: () => string | null;
  /** This satellite's name, which tickets must contain. Null accepts any. */
  name?: () => string | null;
  log?: Log;
  limits?: Partial<RelayLimits>;
  /** Called when a workspace's agent connects and when it has disconnected. */
  onPresence?: (workspaceId: string, isConnected: boolean) => void;
  /** Called when a user's first client connects. */
  onUser?: (userId: string) => void;
  heartbeatMs?: number;
  deadAfterMs?: number;
}

export interface RelayStats {
  /** Workspaces with a waiting agent, a waiting client or a session. */
  workspaces: number;
  spares: number;
  waitingDials: number;
  sessions: number;
  /** Bytes relayed since the start. */
  bytesToAgents: number;
  bytesToClients: number;
}

export interface Relay {
  readonly ticketKeys: () => readonly string[];
  readonly id: () => string | null;
  readonly name: () => string | null;
  /** Takes an agent's socket, authorized by its listen token, until it is paired or closed. */
  listen(socket: WebSocket, claims: ListenClaims): void;
  /** Takes a client's socket, authorized by its ticket, and pairs it with an agent's. */
  dial(socket: WebSocket, claims: TicketClaims): void;
  /** True while an agent of the workspace waits here or serves a session. */
  isConnected(workspaceId: string): boolean;
  /** The users with clients here. */
  users(): string[];
  /** Closes all sockets of a user whose access was revoked. */
  endUser(userId: string): void;
  stats(): RelayStats;
  readonly draining: boolean;
  /** Accepts no new sockets and closes waiting ones. Resolves when the last session has ended; never after `reopen`. */
  drain(): Promise<void>;
  /**
   * While draining: closes the sessions' sockets, spread over `overMs`, so that their clients move to another
   * satellite. Sessions that cannot move end.
   */
  evict(overMs: number): void;
  /** Ends draining. */
  reopen(): void;
  /** Closes everything with code 1012 (service restart). Takes at most a second. */
  close(): Promise<void>;
}

/**
 * Pairs the sockets of agents and clients by workspace and copies bytes between them without interpreting them. It is
 * independent of HTTP: plugin.ts authorizes the sockets and hands them over.
 */
export function makeRelay(options: RelayOptions): Relay {
  const { log = silentLog } = options;
  const limits = { ...defaultRelayLimits, ...options.limits };
  const ticketKeys = options.ticketKeys;
  const workspaces = makeWorkspaceRegistry(limits, options.onPresence);
  const clients = makeClientRegistry({
    maxSocketsPerUser: limits.socketsPerUser,
    smallMessages: limits.smallMessages,
    onUser: options.onUser,
  });
  const sockets = new Set<WebSocket>();
  /** The agent's socket of each session by its client's socket. */
  const agentSockets = new Map<WebSocket, WebSocket>();
  const totals = { sessions: 0, bytesToAgents: 0, bytesToClients: 0 };
  const draining = makeDraining(() => totals.sessions);

  /** Counts and watches a socket. Closes it and returns false if there is no capacity. */
  function admit(socket: WebSocket): boolean {
    if (draining.active || sockets.size >= limits.sockets) {
      rejectPeer(socket, draining.active ? 4503 : 4429);
      return false;
    }
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    watchPeer(socket, options);
    return true;
  }

  function listen(socket: WebSocket, { workspaceId, buildId }: ListenClaims): void {
    if (!admit(socket)) return;
    const workspace = workspaces.get(workspaceId);
    // Build ids are UUIDv7, so they sort by time. The agent of a superseded build must not receive clients; it may
    // still run on a node that was cut off.
    if (workspace.spares.some((each) => each.buildId > buildId)) return void rejectPeer(socket, 4409);
    for (const each of [...workspace.spares]) if (each.buildId < buildId) each.leave(4409);
    if (workspace.spares.length >= limits.sparesPerWorkspace) return void rejectPeer(socket, 4429);
    const dial = workspace.dials[0];
    if (dial) return void pair(workspaceId, workspace, dial, socket, dial);
    addSpare(workspace, socket, buildId, () => workspaces.update(workspaceId, workspace));
    workspaces.update(workspaceId, workspace);
  }

  function dial(socket: WebSocket, { workspaceId, userId }: TicketClaims): void {
    if (!admit(socket)) return;
    const user = clients.add(userId, socket);
    if (!user) return void rejectPeer(socket, 4429);
    const workspace = workspaces.get(workspaceId);
    if (workspace.sessions >= limits.sessionsPerWorkspace) return void rejectPeer(socket, 4429);
    const spare = workspace.spares.at(-1);
    const client = { socket, userId, early: [], small: user.small };
    if (spare) return void pair(workspaceId, workspace, client, spare.socket, spare);
    if (workspace.dials.length >= limits.waitingDialsPerWorkspace) return void rejectPeer(socket, 4429);
    addDial(workspace, client, limits, () => workspaces.update(workspaceId, workspace));
  }

  function pair(
    workspaceId: string,
    workspace: WorkspaceState,
    { socket: client, userId, early, small }: Omit<WaitingDial, 'leave'>,
    agent: WebSocket,
    waiting: WaitingSocket,
  ): void {
    const startedAt = performance.now();
    let bytesToAgent = 0;
    let bytesToClient = 0;
    workspace.sessions++;
    totals.sessions++;
    waiting.leave();
    agentSockets.set(client, agent);
    agent.send(dialedMessage);
    bridge(
      client,
      agent,
      early,
      limits.bufferedBytes,
      { client: small, agent: workspace.small },
      {
        toAgent(bytes) {
          bytesToAgent += bytes;
          totals.bytesToAgents += bytes;
        },
        toClient(bytes) {
          bytesToClient += bytes;
          totals.bytesToClients += bytes;
        },
        ended(by, closeCode) {
          agentSockets.delete(client);
          workspace.sessions--;
          totals.sessions--;
          const seconds = Math.round((performance.now() - startedAt) / 1000);
          log.info(
            { workspaceId, userId, by, closeCode, seconds, bytesToAgent, bytesToClient },
            'relay session ended',
          );
          workspaces.update(workspaceId, workspace);
          draining.sessionEnded();
        },
      },
    );
    workspaces.update(workspaceId, workspace);
  }

  return {
    ticketKeys: typeof ticketKeys === 'function' ? ticketKeys : () => ticketKeys,
    id: options.id ?? (() => null),
    name: options.name ?? (() => null),
    listen,
    dial,
    isConnected: workspaces.isConnected,
    users: clients.users,
    endUser(userId) {
      for (const socket of clients.socketsOf(userId)) {
        rejectPeer(socket, 4403);
        // The agent too, or it would keep the session for a client that reconnects.
        const agent = agentSockets.get(socket);
        if (agent) rejectPeer(agent, 4403);
      }
    },
    stats: () => ({ ...workspaces.stats(), ...totals }),
    get draining() {
      return draining.active;
    },
    drain() {
      const drained = draining.begin();
      for (const waiting of workspaces.waiting()) waiting.leave(4503);
      return drained;
    },
    evict: (overMs) => draining.evict(agentSockets.keys(), overMs),
    reopen: draining.end,
    async close() {
      draining.close();
      const all = [...sockets];
      for (const socket of all) rejectPeer(socket, 1012);
      const closed = Promise.all(all.map((socket) => once(socket, 'close')));
      const timer = setTimeout(() => {
        for (const socket of all) socket.terminate();
      }, 1_000);
      await closed;
      clearTimeout(timer);
      workspaces.close();
    },
  };
}
