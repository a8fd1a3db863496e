import { type ClientMessage, ServerMessage } from '@cde/api/events.ts';

/** `live`: events arrive. `paused`: the tab is hidden. Else pages poll. */
export type LiveState = 'connecting' | 'live' | 'reconnecting' | 'paused';

/** The part of a WebSocket that is used here. */
export interface Socket {
  send(text: string): void;
  close(): void;
  onopen: (() => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: (() => void) | null;
}

export interface LiveConnection {
  state(): LiveState;
  onState(listener: () => void): () => void;
  /** Subscribes while at least one caller holds the topic; returns a function that releases it. */
  hold(topic: string): () => void;
  onMessage(listener: (message: ServerMessage) => void): () => void;
  /** A hidden tab gets no events. When it is visible again each topic is resubscribed, and `subscribed` triggers a refetch. */
  setVisible(visible: boolean): void;
  /** Reconnects at once. Call it when the machine is back on a network. */
  retryNow(): void;
  close(): void;
}

// A restarting server is back within a second or two, and a thousand dashboards must not reconnect all at once.
const firstRetryMs = 500;
const lastRetryMs = 15_000;

/** The delay before `attempt` (from 0): exponential, with jitter between half and the whole of it. */
export function retryDelay(attempt: number, random: () => number = Math.random): number {
  return Math.min(lastRetryMs, firstRetryMs * 2 ** attempt) * (0.5 + random() / 2);
}

/** One WebSocket for all pages. The first topic opens it; a lost connection is reopened with backoff. */
export function makeLive(options: {
  open: () => Socket;
  visible: boolean;
  setTimer?: (run: () => void, ms: number) => unknown;
  clearTimer?: (timer: never) => void;
}): LiveConnection {
  const setTimer = options.setTimer ?? ((run, ms) => setTimeout(run, ms));
  const clearTimer = (options.clearTimer ?? clearTimeout) as (timer: unknown) => void;
  const topics = new Map<string, number>();
  const stateListeners = new Set<() => void>();
  const messageListeners = new Set<(message: ServerMessage) => void>();
  let visible = options.visible;
  let socket: Socket | null = null;
  let open = false;
  let attempt = 0;
  let timer: unknown = null;
  let closed = false;
  let state: LiveState = 'connecting';

  function settle(): void {
    const next: LiveState = !visible
      ? 'paused'
      : open
        ? 'live'
        : attempt === 0
          ? 'connecting'
          : 'reconnecting';
    if (next === state) return;
    state = next;
    for (const listener of stateListeners) listener();
  }

  function send(message: ClientMessage): void {
    if (open) socket?.send(JSON.stringify(message));
  }

  function connect(): void {
    if (socket || closed || !visible || topics.size === 0) return;
    if (timer !== null) clearTimer(timer);
    timer = null;
    const mine = options.open();
    socket = mine;
    mine.onopen = () => {
      open = true;
      attempt = 0;
      for (const topic of topics.keys()) send({ type: 'subscribe', topic });
      settle();
    };
    mine.onmessage = (event) => {
      const message = read(event.data);
      if (message) for (const listener of messageListeners) listener(message);
    };
    mine.onclose = () => {
      if (socket !== mine) return;
      socket = null;
      open = false;
      const wait = retryDelay(attempt);
      attempt += 1;
      settle();
      if (!closed && visible) timer = setTimer(connect, wait);
    };
  }

  return {
    state: () => state,
    onState(listener) {
      stateListeners.add(listener);
      return () => stateListeners.delete(listener);
    },
    onMessage(listener) {
      messageListeners.add(listener);
      return () => messageListeners.delete(listener);
    },
    hold(topic) {
      const holders = topics.get(topic) ?? 0;
      topics.set(topic, holders + 1);
      if (holders === 0 && visible) send({ type: 'subscribe', topic });
      connect();
      let held = true;
      return () => {
        if (!held) return;
        held = false;
        const left = (topics.get(topic) ?? 1) - 1;
        if (left > 0) topics.set(topic, left);
        else {
          topics.delete(topic);
          if (visible) send({ type: 'unsubscribe', topic });
        }
      };
    },
    setVisible(now) {
      if (visible === now) return;
      visible = now;
      for (const topic of topics.keys()) send({ type: now ? 'subscribe' : 'unsubscribe', topic });
      if (now) {
        attempt = 0;
        connect();
      } else if (timer !== null) {
        clearTimer(timer);
        timer = null;
      }
      settle();
    },
    retryNow() {
      attempt = Math.min(attempt, 1);
      connect();
    },
    close() {
      closed = true;
      if (timer !== null) clearTimer(timer);
      socket?.close();
      socket = null;
      open = false;
    },
  };
}

function read(data: unknown): ServerMessage | null {
  if (typeof data !== 'string') return null;
  try {
    const parsed = ServerMessage.safeParse(JSON.parse(data));
    return parsed.success ? parsed.data : null;
  } catch {
    return null;
  }
}
