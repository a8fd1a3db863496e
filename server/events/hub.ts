import { ClientMessage, type ServerMessage } from '@cde/api/events.ts';
import type { LogLine } from '@cde/api/workspaces.ts';
import {
  isRejected,
  limitSocket,
  policyViolation,
  rejectSocket,
  type SocketBudget,
} from '@cde/tunnel/network/socket-limits.ts';
import type { FastifyInstance } from 'fastify';
import type { WebSocket } from 'ws';
import type { UserActor } from '../http/actor.ts';
import { authorizeUpgrade, reauthorizeSocket } from '../http/socket-auth.ts';
import { makeSocketLimiter } from '../http/socket-limiter.ts';
import type { Logger } from '../log.ts';
import type { Bus, Change } from './bus.ts';

/** How the hub reads topics. Implemented by the rooms above this one. */
export interface TopicReader {
  workspace(id: string): Promise<{ ownerId: string; message: (topic: string) => ServerMessage } | null>;
  build(id: string): Promise<{ ownerId: string; message: (topic: string) => ServerMessage } | null>;
  log(buildId: string, after: number): Promise<LogLine[]>;
  /** Removes what only the workspace's owner can see. */
  redactLines(lines: LogLine[]): LogLine[];
  /** The number of the last line. */
  logEnd(buildId: string): Promise<number>;
  canRead(actor: UserActor, ownerId: string): boolean;
}

interface Subscriber {
  actor: UserActor;
  socket: WebSocket;
  topics: Set<string>;
  /** Topics with messages that were dropped because the subscriber was too slow. */
  missedTopics: Set<string>;
}

/** Above this many unsent bytes a subscriber's messages are dropped. Once it has caught up it gets a resync instead. */
const slowBytes = 1024 * 1024;
/** Changes of one workspace within this time are sent as one message. */
const coalesceMs = 25;
const maxTopics = 500;
/** Navigating between two pages of 500 topics sends a thousand messages at once, and then few for a while. */
const budget: SocketBudget = { frames: { perSecond: 50, burst: 2_000 }, maxMessage: 1024 };
/** Changes for a slow subscriber are dropped, but replies to its own messages are not: above this it is disconnected. */
const maxUnsentBytes = 4 * slowBytes;

/** Serves live events to dashboards. Each message is encoded once for all subscribers of a topic. */
export function makeHub(
  app: FastifyInstance,
  { bus, reader, log }: { bus: Bus; reader: TopicReader; log: Logger },
): { close(): void } {
  const subscribers = new Set<Subscriber>();
  const byTopic = new Map<string, Set<Subscriber>>();
  const logPosition = new Map<string, number>();
  const pending = new Map<string, Change>();
  let timer: NodeJS.Timeout | null = null;

  function send(subscriber: Subscriber, topic: string, encoded: string): void {
    const { socket } = subscriber;
    if (socket.readyState !== socket.OPEN) return;
    if (socket.bufferedAmount > slowBytes) {
      subscriber.missedTopics.add(topic);
      return;
    }
    socket.send(encoded, () => catchUp(subscriber));
  }

  function catchUp(subscriber: Subscriber): void {
    if (subscriber.missedTopics.size === 0 || subscriber.socket.bufferedAmount > slowBytes / 2) return;
    const topics = [...subscriber.missedTopics];
    subscriber.missedTopics.clear();
    for (const topic of topics)
      subscriber.socket.send(JSON.stringify({ type: 'resync', topic } satisfies ServerMessage));
  }

  function broadcast(
    topic: string,
    message: ServerMessage,
    isRecipient: (subscriber: Subscriber) => boolean = () => true,
  ): void {
    const audience = byTopic.get(topic);
    if (!audience) return;
    const encoded = JSON.stringify(message);
    for (const subscriber of audience) if (isRecipient(subscriber)) send(subscriber, topic, encoded);
  }

  async function broadcastChange({ workspaceId, buildId }: Change): Promise<void> {
    const topic = `workspace:${workspaceId}`;
    if (byTopic.has(topic) || byTopic.has('workspaces')) {
      const view = await reader.workspace(workspaceId);
      if (view) {
        broadcast(topic, view.message(topic));
        broadcast('workspaces', view.message('workspaces'), (subscriber) =>
          reader.canRead(subscriber.actor, view.ownerId),
        );
      }
    }
    const buildTopic = `build:${buildId}`;
    if (buildId && byTopic.has(buildTopic)) {
      for (;;) {
        const lines = await reader.log(buildId, logPosition.get(buildTopic) ?? 0);
        if (lines.length === 0) break;
        logPosition.set(buildTopic, lines.at(-1)!.seq);
        const ownerId = (await reader.build(buildId))?.ownerId;
        const isOwner = ({ actor }: Subscriber) => actor.userId === ownerId;
        const message = (visible: LogLine[]) =>
          ({ type: 'log', topic: buildTopic, buildId, lines: visible }) satisfies ServerMessage;
        broadcast(buildTopic, message(lines), isOwner);
        broadcast(buildTopic, message(reader.redactLines(lines)), (subscriber) => !isOwner(subscriber));
      }
      const build = await reader.build(buildId);
      if (build) broadcast(buildTopic, build.message(buildTopic));
    }
  }

  let broadcasting = Promise.resolve();
  const unsubscribeBus = bus.subscribe(
    (change) => {
      if (subscribers.size === 0) return;
      pending.set(`${change.workspaceId}/${change.buildId ?? ''}`, change);
      timer ??= setTimeout(() => {
        timer = null;
        const changes = [...pending.values()];
        pending.clear();
        // Sequential, so that log lines stay in order.
        broadcasting = broadcasting.then(async () => {
          for (const change of changes)
            await broadcastChange(change).catch((error) =>
              log.debug({ err: error }, 'could not broadcast an event'),
            );
        });
      }, coalesceMs);
    },
    () => {
      for (const topic of byTopic.keys()) broadcast(topic, { type: 'resync', topic });
    },
  );

  async function subscribe(subscriber: Subscriber, topic: string): Promise<void> {
    const reply = (message: ServerMessage) => {
      if (subscriber.socket.bufferedAmount > maxUnsentBytes) subscriber.socket.terminate();
      else subscriber.socket.send(JSON.stringify(message));
    };
    const replyError = (code: string, message: string) => reply({ type: 'error', topic, code, message });
    if (subscriber.topics.size >= maxTopics)
      return replyError('too-many-topics', `At most ${maxTopics} topics at once.`);
    const [kind, id] = topic.split(':', 2);
    if (topic !== 'workspaces') {
      const found =
        kind === 'workspace' && id
          ? await reader.workspace(id)
          : kind === 'build' && id
            ? await reader.build(id)
            : null;
      if (!found || !reader.canRead(subscriber.actor, found.ownerId))
        return replyError('not-found', `There is no ${topic} that you can see.`);
    }
    if (subscriber.socket.readyState !== subscriber.socket.OPEN) return;
    if (kind === 'build' && !byTopic.has(topic)) logPosition.set(topic, await reader.logEnd(id!));
    subscriber.topics.add(topic);
    let audience = byTopic.get(topic);
    if (!audience) {
      audience = new Set();
      byTopic.set(topic, audience);
    }
    audience.add(subscriber);
    // The client fetches the current state after this reply, so no change is lost in between.
    reply({ type: 'subscribed', topic });
  }

  function unsubscribe(subscriber: Subscriber, topic: string): void {
    subscriber.topics.delete(topic);
    subscriber.missedTopics.delete(topic);
    const audience = byTopic.get(topic);
    audience?.delete(subscriber);
    if (audience?.size === 0) {
      byTopic.delete(topic);
      logPosition.delete(topic);
    }
  }

  const open = makeSocketLimiter('connections for events');
  app.get(
    '/api/v1/events',
    {
      websocket: true,
      schema: { hide: true },
      preValidation: async (request) => {
        const { userId } = await authorizeUpgrade(app, request, 'workspace:read');
        open.add(userId, request);
      },
    },
    (socket: WebSocket, request) => {
      const subscriber: Subscriber = {
        actor: request.actor as UserActor,
        socket,
        topics: new Set(),
        missedTopics: new Set(),
      };
      subscribers.add(subscriber);
      limitSocket(socket, budget);
      const { role, scopes } = subscriber.actor;
      // Topics were authorized for the old role: after a change the client must reconnect and subscribe again.
      reauthorizeSocket(
        app,
        socket,
        request,
        'workspace:read',
        (actor) => actor.role === role && actor.scopes.join() === scopes.join(),
      );
      let waiting = 0;
      let queue = Promise.resolve();
      socket.on('message', (data: Buffer) => {
        if (isRejected(socket) || socket.readyState !== socket.OPEN) return;
        const message = ClientMessage.safeParse(safeJson(data));
        if (!message.success) return rejectSocket(socket, policyViolation, 'invalid message');
        // Each message costs a query and they run one at a time; a dashboard never queues this many.
        if (waiting >= 2 * maxTopics)
          return rejectSocket(socket, policyViolation, 'too many messages at once');
        waiting += 1;
        queue = queue
          .then(async () => {
            if (socket.readyState !== socket.OPEN) return;
            if (message.data.type === 'subscribe') await subscribe(subscriber, message.data.topic);
            else unsubscribe(subscriber, message.data.topic);
          })
          .catch((error) => log.debug({ err: error }, 'could not subscribe to a topic'))
          .finally(() => {
            waiting -= 1;
          });
      });
      socket.on('close', () => {
        subscribers.delete(subscriber);
        for (const topic of [...subscriber.topics]) unsubscribe(subscriber, topic);
      });
    },
  );

  return {
    close() {
      unsubscribeBus();
      if (timer) clearTimeout(timer);
      for (const { socket } of subscribers) socket.close(1012, 'the server restarts');
    },
  };
}

function safeJson(data: Buffer): unknown {
  try {
    return JSON.parse(data.toString('utf8'));
  } catch {
    return null;
  }
}
