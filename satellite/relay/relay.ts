import { once } from 'node:events';
import type { ListenClaims, TicketClaims } from '@cde/tunnel/auth/ticket.ts';
import { type Log, silentLog } from '@cde/tunnel/log.ts';
import { rejectSocket } from '@cde/tunnel/network/socket-limits.ts';
import { dialedMessage, type RelayCloseCode, relayCloseCodes } from '@cde/tunnel/paths/relay-protocol.ts';
import type WebSocket from 'ws';
import { bridge } from './bridge.ts';
import { makeClientRegistry } from './clients.ts';
import { defaultRelayLimits, type RelayLimits } from './limits.ts';
import { watchPeer } from './peer.ts';
import {
  makeWorkspaceRegistry,
  type Spare,
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
  /** Accepts no new sockets and closes waiting ones. Resolves when the last session has ended. */
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
  const evictionTimers = new Set<NodeJS.Timeout>();
  const totals = { sessions: 0, bytesToAgents: 0, bytesToClients: 0 };
  let draining = false;
  let onDrained: (() => void)[] = [];

  function changed(workspaceId: string, workspace: WorkspaceState): void {
    workspaces.update(workspaceId, workspace);
    notifyIfDrained();
  }

  function notifyIfDrained(): void {
    if (!draining || totals.sessions > 0) return;
    for (const resolve of onDrained) resolve();
    onDrained = [];
  }

  /** Counts and watches a socket. Closes it and returns false if there is no capacity. */
  function admit(socket: WebSocket): boolean {
    if (draining || sockets.size >= limits.sockets) {
      reject(socket, draining ? 4503 : 4429);
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
    if (workspace.spares.some((each) => each.buildId > buildId)) return void reject(socket, 4409);
    for (const each of [...workspace.spares]) if (each.buildId < buildId) each.leave(4409);
    if (workspace.spares.length >= limits.sparesPerWorkspace) return void reject(socket, 4429);
    const dial = workspace.dials[0];
    if (dial) return void pair(workspaceId, workspace, dial, socket, dial);
    addSpare(workspaceId, workspace, socket, buildId);
  }

  function addSpare(
    workspaceId: string,
    workspace: WorkspaceState,
    socket: WebSocket,
    buildId: string,
  ): void {
    const spare: Spare = {
      socket,
      buildId,
      leave(code) {
        socket.off('close', onClose);
        socket.off('message', onMessage);
        remove(workspace.spares, spare);
        if (code) reject(socket, code);
        changed(workspaceId, workspace);
      },
    };
    const onClose = () => spare.leave();
    // Our agents send nothing before they are paired.
    const onMessage = () => spare.leave(4400);
    socket.once('close', onClose);
    socket.on('message', onMessage);
    workspace.spares.push(spare);
    changed(workspaceId, workspace);
  }

  function dial(socket: WebSocket, { workspaceId, userId }: TicketClaims): void {
    if (!admit(socket)) return;
    const user = clients.add(userId, socket);
    if (!user) return void reject(socket, 4429);
    const workspace = workspaces.get(workspaceId);
    if (workspace.sessions >= limits.sessionsPerWorkspace) return void reject(socket, 4429);
    const spare = workspace.spares.at(-1);
    const client = { socket, userId, early: [], small: user.small };
    if (spare) return void pair(workspaceId, workspace, client, spare.socket, spare);
    if (workspace.dials.length >= limits.waitingDialsPerWorkspace) return void reject(socket, 4429);
    addDial(workspaceId, workspace, client);
  }

  function addDial(workspaceId: string, workspace: WorkspaceState, client: Omit<WaitingDial, 'leave'>): void {
    const { socket } = client;
    const dial: WaitingDial = {
      ...client,
      leave(code) {
        clearTimeout(timer);
        socket.off('close', onClose);
        socket.off('message', onMessage);
        remove(workspace.dials, dial);
        if (code) reject(socket, code);
        changed(workspaceId, workspace);
      },
    };
    const onClose = () => dial.leave();
    // A client sends its TLS ClientHello and then waits for the answer.
    let earlyBytes = 0;
    const onMessage = (data: WebSocket.RawData, isBinary: boolean) => {
      const chunk = data as Buffer;
      earlyBytes += chunk.length;
      if (!isBinary || dial.early.length >= 16 || earlyBytes > limits.earlyBytes) dial.leave(4400);
      else dial.early.push(chunk);
    };
    const timer = setTimeout(() => dial.leave(4404), limits.dialWaitMs);
    socket.once('close', onClose);
    socket.on('message', onMessage);
    workspace.dials.push(dial);
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
          changed(workspaceId, workspace);
        },
      },
    );
    changed(workspaceId, workspace);
  }

  function reject(socket: WebSocket, code: RelayCloseCode): void {
    // Nothing more is read from a peer that violates the protocol; others get to answer the close frame.
    if (code === 4400) rejectSocket(socket, code, relayCloseCodes[code]);
    else socket.close(code, relayCloseCodes[code]);
  }

  function cancelEvictions(): void {
    for (const timer of evictionTimers) clearTimeout(timer);
    evictionTimers.clear();
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
        reject(socket, 4403);
        // The agent too, or it would keep the session for a client that reconnects.
        const agent = agentSockets.get(socket);
        if (agent) reject(agent, 4403);
      }
    },
    stats: () => ({ ...workspaces.stats(), ...totals }),
    get draining() {
      return draining;
    },
    drain() {
      draining = true;
      const drained = new Promise<void>((resolve) => onDrained.push(resolve));
      for (const waiting of workspaces.waiting()) waiting.leave(4503);
      notifyIfDrained();
      return drained;
    },
    evict(overMs) {
      const intervalMs = overMs / Math.max(agentSockets.size, 1);
      for (const [index, client] of [...agentSockets.keys()].entries()) {
        const timer = setTimeout(() => {
          evictionTimers.delete(timer);
          reject(client, 4503);
        }, index * intervalMs);
        evictionTimers.add(timer);
      }
    },
    reopen() {
      draining = false;
      cancelEvictions();
    },
    async close() {
      draining = true;
      cancelEvictions();
      const all = [...sockets];
      for (const socket of all) reject(socket, 1012);
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

function remove<T>(list: T[], item: T): void {
  const index = list.indexOf(item);
  if (index >= 0) list.splice(index, 1);
}
