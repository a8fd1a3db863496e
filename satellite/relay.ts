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
  onPresence?: (workspaceId: string, connected: boolean) => void;
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
  connected(workspaceId: string): boolean;
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
  sendAway(overMs: number): void;
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

interface Place {
  /** Oldest first; the newest is used first, as the likeliest to be alive. */
  spares: (Waiting & { buildId: string })[];
  dials: WaitingDial[];
  sessions: number;
  /** Of its agents' sockets. */
  small: Bucket;
  present: boolean;
  goneTimer: NodeJS.Timeout | undefined;
}

/**
 * Pairs the sockets of agents and clients by workspace and copies bytes between them, without looking at
 * them. Knows nothing of HTTP: plugin.ts admits and hands over the sockets.
 */
export function makeRelay(options: RelayOptions): Relay {
  const { log = silentLog } = options;
  const limits = { ...defaultRelayLimits, ...options.limits };
  const ticketKeys = options.ticketKeys;
  const places = new Map<string, Place>();
  const sockets = new Set<WebSocket>();
  /** The agent's socket of each pair, by the client's. */
  const partners = new Map<WebSocket, WebSocket>();
  const leaving = new Set<NodeJS.Timeout>();
  /** The clients' sockets, by user, and the budget that they share. */
  const clients = new Map<string, { sockets: Set<WebSocket>; small: Bucket }>();
  const totals = { sessions: 0, bytesToAgents: 0, bytesToClients: 0 };
  let draining = false;
  let drained: (() => void) | undefined;

  function placeOf(workspaceId: string): Place {
    let place = places.get(workspaceId);
    if (!place) {
      place = {
        spares: [],
        dials: [],
        sessions: 0,
        small: makeBucket(limits.smallMessages),
        present: false,
        goneTimer: undefined,
      };
      places.set(workspaceId, place);
    }
    return place;
  }

  /** To be called after each change of a place: presence, and forgetting what is empty. */
  function settle(workspaceId: string, place: Place): void {
    if (place.spares.length > 0 || place.sessions > 0) {
      clearTimeout(place.goneTimer);
      place.goneTimer = undefined;
      if (!place.present) {
        place.present = true;
        options.onPresence?.(workspaceId, true);
      }
    } else if (place.present) {
      place.goneTimer ??= setTimeout(() => {
        place.goneTimer = undefined;
        place.present = false;
        options.onPresence?.(workspaceId, false);
        settle(workspaceId, place);
      }, limits.presenceGraceMs).unref();
    } else if (place.dials.length === 0) {
      places.delete(workspaceId);
    }
    if (draining && totals.sessions === 0) drained?.();
  }

  /** Counts and watches a socket; false when there is no room for it. */
  function take(socket: WebSocket): boolean {
    if (draining || sockets.size >= limits.sockets) {
      turnAway(socket, draining ? 4503 : 4429);
      return false;
    }
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    watchPeer(socket, options);
    return true;
  }

  function listen(socket: WebSocket, { workspaceId, buildId }: ListenClaims): void {
    if (!take(socket)) return;
    const place = placeOf(workspaceId);
    // Build ids are UUIDv7, so their order is that of time. An agent that a newer build has replaced must not
    // catch dials; it may still run where a node was cut off.
    if (place.spares.some((each) => each.buildId > buildId)) {
      turnAway(socket, 4409);
      return;
    }
    for (const each of [...place.spares]) if (each.buildId < buildId) each.leave(4409);
    if (place.spares.length >= limits.sparesPerWorkspace) {
      turnAway(socket, 4429);
      return;
    }

    const spare: Waiting & { buildId: string } = {
      socket,
      buildId,
      leave(code) {
        socket.off('close', gone);
        socket.off('message', spoke);
        remove(place.spares, spare);
        if (code) turnAway(socket, code);
        settle(workspaceId, place);
      },
    };
    const gone = () => spare.leave();
    // An agent that speaks before a client is there is none of ours.
    const spoke = () => spare.leave(4400);

    const dial = place.dials[0];
    if (dial) {
      pair(workspaceId, place, dial, socket, dial);
      return;
    }
    socket.once('close', gone);
    socket.on('message', spoke);
    place.spares.push(spare);
    settle(workspaceId, place);
  }

  function dial(socket: WebSocket, { workspaceId, userId }: TicketClaims): void {
    if (!take(socket)) return;
    const theirs = clients.get(userId) ?? { sockets: new Set(), small: makeBucket(limits.smallMessages) };
    if (theirs.sockets.size >= limits.socketsPerUser) {
      turnAway(socket, 4429);
      return;
    }
    clients.set(userId, theirs);
    theirs.sockets.add(socket);
    if (theirs.sockets.size === 1) options.onUser?.(userId);
    socket.once('close', () => {
      theirs.sockets.delete(socket);
      if (theirs.sockets.size === 0 && clients.get(userId) === theirs) clients.delete(userId);
    });
    const place = placeOf(workspaceId);
    if (place.sessions >= limits.sessionsPerWorkspace) {
      turnAway(socket, 4429);
      return;
    }
    const spare = place.spares.at(-1);
    if (spare) {
      pair(workspaceId, place, { socket, userId, early: [], small: theirs.small }, spare.socket, spare);
      return;
    }
    if (place.dials.length >= limits.waitingDialsPerWorkspace) {
      turnAway(socket, 4429);
      return;
    }
    const dial: WaitingDial = {
      socket,
      userId,
      early: [],
      small: theirs.small,
      leave(code) {
        clearTimeout(timer);
        socket.off('close', gone);
        socket.off('message', keep);
        remove(place.dials, dial);
        if (code) turnAway(socket, code);
        settle(workspaceId, place);
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
    place.dials.push(dial);
  }

  function pair(
    workspaceId: string,
    place: Place,
    { socket: client, userId, early, small }: Omit<WaitingDial, 'leave'>,
    agent: WebSocket,
    waited: Waiting,
  ): void {
    const startedAt = performance.now();
    let bytesToAgent = 0;
    let bytesToClient = 0;
    place.sessions++;
    totals.sessions++;
    waited.leave();
    partners.set(client, agent);
    agent.send(dialedMessage);
    bridge(
      client,
      agent,
      early,
      limits.bufferedBytes,
      { client: small, agent: place.small },
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
          place.sessions--;
          totals.sessions--;
          const seconds = Math.round((performance.now() - startedAt) / 1000);
          log.info(
            { workspaceId, userId, by, closeCode, seconds, bytesToAgent, bytesToClient },
            'relay session ended',
          );
          settle(workspaceId, place);
        },
      },
    );
    settle(workspaceId, place);
  }

  function turnAway(socket: WebSocket, code: RelayCloseCode): void {
    // Whoever does not keep to the protocol is not read any further; all others may answer the close.
    if (code === 4400) rejectSocket(socket, code, relayCloseCodes[code]);
    else socket.close(code, relayCloseCodes[code]);
  }

  return {
    ticketKeys: typeof ticketKeys === 'function' ? ticketKeys : () => ticketKeys,
    id: options.id ?? (() => null),
    listen,
    dial,
    connected: (workspaceId) => places.get(workspaceId)?.present ?? false,
    users: () => [...clients.keys()],
    endUser(userId) {
      for (const socket of clients.get(userId)?.sockets ?? []) {
        turnAway(socket, 4403);
        // The agent too: it must not keep the session for a client that comes back.
        const partner = partners.get(socket);
        if (partner) turnAway(partner, 4403);
      }
    },
    stats() {
      let spares = 0;
      let waitingDials = 0;
      for (const place of places.values()) {
        spares += place.spares.length;
        waitingDials += place.dials.length;
      }
      return { workspaces: places.size, spares, waitingDials, ...totals };
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
      for (const place of places.values()) {
        for (const waiting of [...place.spares, ...place.dials]) waiting.leave(4503);
      }
      if (totals.sessions === 0) drained?.();
      return done;
    },
    sendAway(overMs) {
      const each = overMs / Math.max(partners.size, 1);
      let at = 0;
      for (const client of partners.keys()) {
        const timer = setTimeout(() => {
          leaving.delete(timer);
          turnAway(client, 4503);
        }, at);
        leaving.add(timer);
        at += each;
      }
    },
    reopen() {
      draining = false;
      for (const timer of leaving) clearTimeout(timer);
      leaving.clear();
    },
    async close() {
      draining = true;
      for (const timer of leaving) clearTimeout(timer);
      const all = [...sockets];
      for (const socket of all) turnAway(socket, 1012);
      const gone = Promise.all(all.map((socket) => once(socket, 'close')));
      const timer = setTimeout(() => {
        for (const socket of all) socket.terminate();
      }, 1_000);
      await gone;
      clearTimeout(timer);
      for (const place of places.values()) clearTimeout(place.goneTimer);
    },
  };
}

function remove<T>(list: T[], item: T): void {
  const index = list.indexOf(item);
  if (index >= 0) list.splice(index, 1);
}
