import { once } from 'node:events';
import type { ListenClaims, TicketClaims } from '@cde/tunnel/auth/ticket.ts';
import { type Log, silentLog } from '@cde/tunnel/log.ts';
import { rejectSocket } from '@cde/tunnel/network/socket-limits.ts';
import { type Bucket, makeBucket, type Rate } from '@cde/tunnel/network/token-bucket.ts';
import { dialedMessage, type RelayCloseCode, relayCloseCodes } from '@cde/tunnel/paths/relay-protocol.ts';
import type WebSocket from 'ws';
import { bridge } from './bridge.ts';
import { watchPeer } from './peer.ts';

export interface RelayLimits {
  /** Sockets with which the agents of one workspace wait; beyond it the newest is refused. */
  sparesPerWorkspace: number;
  /** Dials of one workspace that wait for an agent. */
  waitingDialsPerWorkspace: number;
  /** Pairs of one workspace. */
  sessionsPerWorkspace: number;
  /** Sockets of one user's clients, whatever workspace they lead to: nobody takes the places of all the others. */
  socketsPerUser: number;
  /** Of the whole satellite: listening and dialling sockets. */
  sockets: number;
  /** How long a dial waits for an agent: longer than an agent needs to replace a spare on a bad line. */
  dialWaitMs: number;
  /** What one direction of a pair may hold before its sender is paused. */
  bufferedBytes: number;
  /** What a client may say before an agent is there: a TLS hello and no more. */
  earlyBytes: number;
  /**
   * Small messages of all the sockets of one user, and of all those of one workspace's agents. A program that sends a
   * byte at a time through a forwarded port reaches some 10,000 a second; at this rate they take a fifth of a core.
   */
  smallMessages: Rate;
  /** How long a workspace without any socket still counts as connected: replacing a spare is no event. */
  presenceGraceMs: number;
}

export const defaultRelayLimits: RelayLimits = {
  sparesPerWorkspace: 8,
  waitingDialsPerWorkspace: 16,
  sessionsPerWorkspace: 256,
  socketsPerUser: 512,
  sockets: 50_000,
  dialWaitMs: 5_000,
  bufferedBytes: 1024 * 1024,
  earlyBytes: 64 * 1024,
  smallMessages: { perSecond: 30_000, burst: 5_000 },
  presenceGraceMs: 2_000,
};

export interface RelayOptions {
  /** The server's public keys (SPKI, base64url), or how to get those of the moment. */
  ticketKeys: readonly string[] | (() => readonly string[]);
  /** This satellite's id, which listen tokens must name; null while it is not known, or to take any. */
  id?: () => string | null;
  log?: Log;
  limits?: Partial<RelayLimits>;
  /** Told when a workspace's agent comes and when it is gone. */
  onPresence?: (workspaceId: string, isConnected: boolean) => void;
  /** Told of each user whose first client comes. */
  onUser?: (userId: string) => void;
  heartbeatMs?: number;
  deadAfterMs?: number;
}

export interface RelayStats {
  /** Workspaces with a waiting agent or an open pair. */
  workspaces: number;
  spares: number;
  waitingDials: number;
  sessions: number;
  /** Bytes relayed since the start, from clients to agents and back. */
  bytesToAgents: number;
  bytesToClients: number;
}

export interface Relay {
  readonly ticketKeys: () => readonly string[];
  readonly id: () => string | null;
  /** Takes an agent's socket, admitted by its listen token, until it is paired or closed. */
  listen(socket: WebSocket, claims: ListenClaims): void;
  /** Takes a client's socket, admitted by its ticket, and pairs it with an agent's. */
  dial(socket: WebSocket, claims: TicketClaims): void;
  /** True while an agent of the workspace waits here or serves a session. */
  isConnected(workspaceId: string): boolean;
  /** The users whose clients are here. */
  users(): string[];
  /** Ends the sessions and dials of a user, who may no longer have any. */
  endUser(userId: string): void;
  stats(): RelayStats;
  readonly draining: boolean;
  /** Takes nobody new, sends waiting agents away; resolves when the last session has ended. */
  drain(): Promise<void>;
  /**
   * While draining: closes the sessions' sockets, spread over `overMs`, so that their clients go on over another
   * satellite (or end, where they cannot).
   */
  evict(overMs: number): void;
  /** The end of draining: takes agents and clients again. */
  reopen(): void;
  /** Ends everything: clients and agents are told that the satellite restarts. At most a second. */
  close(): Promise<void>;
}

/** A socket without its other end yet. */
interface Waiting {
  socket: WebSocket;
  /** Stops waiting: to be paired, or, with a code, to be closed. */
  leave(code?: RelayCloseCode): void;
}

interface WaitingDial extends Waiting {
  userId: string;
  /** What the client has said so far. */
  early: Buffer[];
  /** The budget of its user's small messages. */
  small: Bucket;
}

interface WorkspaceState {
  /** Oldest first; the newest is used first, as the likeliest to be alive. */
  spares: (Waiting & { buildId: string })[];
  dials: WaitingDial[];
  sessions: number;
  /** Of its agents' sockets. */
  small: Bucket;
  present: boolean;
  absenceTimer: NodeJS.Timeout | undefined;
}

/**
 * Pairs the sockets of agents and clients by workspace and copies bytes between them, without looking at
 * them. Knows nothing of HTTP: plugin.ts admits and hands over the sockets.
 */
export function makeRelay(options: RelayOptions): Relay {
  const { log = silentLog } = options;
  const limits = { ...defaultRelayLimits, ...options.limits };
  const ticketKeys = options.ticketKeys;
  const workspaces = new Map<string, WorkspaceState>();
  const sockets = new Set<WebSocket>();
  /** The agent's socket of each pair, by the client's. */
  const partners = new Map<WebSocket, WebSocket>();
  const evictionTimers = new Set<NodeJS.Timeout>();
  /** The clients' sockets, by user, and the budget that they share. */
  const clients = new Map<string, { sockets: Set<WebSocket>; small: Bucket }>();
  const totals = { sessions: 0, bytesToAgents: 0, bytesToClients: 0 };
  let draining = false;
  let drained: (() => void) | undefined;

  function stateOf(workspaceId: string): WorkspaceState {
    let workspace = workspaces.get(workspaceId);
    if (!workspace) {
      workspace = {
        spares: [],
        dials: [],
        sessions: 0,
        small: makeBucket(limits.smallMessages),
        present: false,
        absenceTimer: undefined,
      };
      workspaces.set(workspaceId, workspace);
    }
    return workspace;
  }

  /** To be called after each change of a place: presence, and forgetting what is empty. */
  function update(workspaceId: string, workspace: WorkspaceState): void {
    if (workspace.spares.length > 0 || workspace.sessions > 0) {
      clearTimeout(workspace.absenceTimer);
      workspace.absenceTimer = undefined;
      if (!workspace.present) {
        workspace.present = true;
        options.onPresence?.(workspaceId, true);
      }
    } else if (workspace.present) {
      workspace.absenceTimer ??= setTimeout(() => {
        workspace.absenceTimer = undefined;
        workspace.present = false;
        options.onPresence?.(workspaceId, false);
        update(workspaceId, workspace);
      }, limits.presenceGraceMs).unref();
    } else if (workspace.dials.length === 0) {
      workspaces.delete(workspaceId);
    }
    if (draining && totals.sessions === 0) drained?.();
  }

  /** Counts and watches a socket; false when there is no room for it. */
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
    const workspace = stateOf(workspaceId);
    // Build ids are UUIDv7, so their order is that of time. An agent that a newer build has replaced must not
    // catch dials; it may still run where a node was cut off.
    if (workspace.spares.some((each) => each.buildId > buildId)) {
      reject(socket, 4409);
      return;
    }
    for (const each of [...workspace.spares]) if (each.buildId < buildId) each.leave(4409);
    if (workspace.spares.length >= limits.sparesPerWorkspace) {
      reject(socket, 4429);
      return;
    }

    const spare: Waiting & { buildId: string } = {
      socket,
      buildId,
      leave(code) {
        socket.off('close', gone);
        socket.off('message', spoke);
        remove(workspace.spares, spare);
        if (code) reject(socket, code);
        update(workspaceId, workspace);
      },
    };
    const gone = () => spare.leave();
    // An agent that speaks before a client is there is none of ours.
    const spoke = () => spare.leave(4400);

    const dial = workspace.dials[0];
    if (dial) {
      pair(workspaceId, workspace, dial, socket, dial);
      return;
    }
    socket.once('close', gone);
    socket.on('message', spoke);
    workspace.spares.push(spare);
    update(workspaceId, workspace);
  }

  function dial(socket: WebSocket, { workspaceId, userId }: TicketClaims): void {
    if (!admit(socket)) return;
    const client = clients.get(userId) ?? { sockets: new Set(), small: makeBucket(limits.smallMessages) };
    if (client.sockets.size >= limits.socketsPerUser) {
      reject(socket, 4429);
      return;
    }
    clients.set(userId, client);
    client.sockets.add(socket);
    if (client.sockets.size === 1) options.onUser?.(userId);
    socket.once('close', () => {
      client.sockets.delete(socket);
      if (client.sockets.size === 0 && clients.get(userId) === client) clients.delete(userId);
    });
    const workspace = stateOf(workspaceId);
    if (workspace.sessions >= limits.sessionsPerWorkspace) {
      reject(socket, 4429);
      return;
    }
    const spare = workspace.spares.at(-1);
    if (spare) {
      pair(workspaceId, workspace, { socket, userId, early: [], small: client.small }, spare.socket, spare);
      return;
    }
    if (workspace.dials.length >= limits.waitingDialsPerWorkspace) {
      reject(socket, 4429);
      return;
    }
    const dial: WaitingDial = {
      socket,
      userId,
      early: [],
      small: client.small,
      leave(code) {
        clearTimeout(timer);
        socket.off('close', gone);
        socket.off('message', keep);
        remove(workspace.dials, dial);
        if (code) reject(socket, code);
        update(workspaceId, workspace);
      },
    };
    const gone = () => dial.leave();
    // Before an agent is there a client has its TLS hello to say, and nothing more until it is answered.
    let earlyBytes = 0;
    const keep = (data: WebSocket.RawData, isBinary: boolean) => {
      const chunk = data as Buffer;
      earlyBytes += chunk.length;
      if (!isBinary || dial.early.length >= 16 || earlyBytes > limits.earlyBytes) dial.leave(4400);
      else dial.early.push(chunk);
    };
    const timer = setTimeout(() => dial.leave(4404), limits.dialWaitMs);
    socket.once('close', gone);
    socket.on('message', keep);
    workspace.dials.push(dial);
  }

  function pair(
    workspaceId: string,
    workspace: WorkspaceState,
    { socket: client, userId, early, small }: Omit<WaitingDial, 'leave'>,
    agent: WebSocket,
    waited: Waiting,
  ): void {
    const startedAt = performance.now();
    let bytesToAgent = 0;
    let bytesToClient = 0;
    workspace.sessions++;
    totals.sessions++;
    waited.leave();
    partners.set(client, agent);
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
          partners.delete(client);
          workspace.sessions--;
          totals.sessions--;
          const seconds = Math.round((performance.now() - startedAt) / 1000);
          log.info(
            { workspaceId, userId, by, closeCode, seconds, bytesToAgent, bytesToClient },
            'relay session ended',
          );
          update(workspaceId, workspace);
        },
      },
    );
    update(workspaceId, workspace);
  }

  function reject(socket: WebSocket, code: RelayCloseCode): void {
    // Whoever does not keep to the protocol is not read any further; all others may answer the close.
    if (code === 4400) rejectSocket(socket, code, relayCloseCodes[code]);
    else socket.close(code, relayCloseCodes[code]);
  }

  return {
    ticketKeys: typeof ticketKeys === 'function' ? ticketKeys : () => ticketKeys,
    id: options.id ?? (() => null),
    listen,
    dial,
    isConnected: (workspaceId) => workspaces.get(workspaceId)?.present ?? false,
    users: () => [...clients.keys()],
    endUser(userId) {
      for (const socket of clients.get(userId)?.sockets ?? []) {
        reject(socket, 4403);
        // The agent too: it must not keep the session for a client that comes back.
        const partner = partners.get(socket);
        if (partner) reject(partner, 4403);
      }
    },
    stats() {
      let spares = 0;
      let waitingDials = 0;
      for (const workspace of workspaces.values()) {
        spares += workspace.spares.length;
        waitingDials += workspace.dials.length;
      }
      return { workspaces: workspaces.size, spares, waitingDials, ...totals };
    },
    get draining() {
      return draining;
    },
    drain() {
      draining = true;
      const done = new Promise<void>((resolve) => {
        const earlier = drained;
        drained = () => {
          earlier?.();
          resolve();
        };
      });
      for (const workspace of workspaces.values()) {
        for (const waiting of [...workspace.spares, ...workspace.dials]) waiting.leave(4503);
      }
      if (totals.sessions === 0) drained?.();
      return done;
    },
    evict(overMs) {
      const each = overMs / Math.max(partners.size, 1);
      let at = 0;
      for (const client of partners.keys()) {
        const timer = setTimeout(() => {
          evictionTimers.delete(timer);
          reject(client, 4503);
        }, at);
        evictionTimers.add(timer);
        at += each;
      }
    },
    reopen() {
      draining = false;
      for (const timer of evictionTimers) clearTimeout(timer);
      evictionTimers.clear();
    },
    async close() {
      draining = true;
      for (const timer of evictionTimers) clearTimeout(timer);
      const all = [...sockets];
      for (const socket of all) reject(socket, 1012);
      const gone = Promise.all(all.map((socket) => once(socket, 'close')));
      const timer = setTimeout(() => {
        for (const socket of all) socket.terminate();
      }, 1_000);
      await gone;
      clearTimeout(timer);
      for (const workspace of workspaces.values()) clearTimeout(workspace.absenceTimer);
    },
  };
}

function remove<T>(list: T[], item: T): void {
  const index = list.indexOf(item);
  if (index >= 0) list.splice(index, 1);
}
