import { expect, test } from 'vitest';
import { makeLive, retryDelay, type Socket } from './connection.ts';

/** The server's end of a connection. */
interface Played extends Socket {
  sent: string[];
}

function setUp(visible = true) {
  const sockets: Played[] = [];
  const timers: { run: () => void; ms: number; cleared: boolean }[] = [];
  const live = makeLive({
    visible,
    open: () => {
      const socket: Played = {
        sent: [],
        send: (text) => socket.sent.push(text),
        close: () => socket.onclose?.(),
        onopen: null,
        onmessage: null,
        onclose: null,
      };
      sockets.push(socket);
      return socket;
    },
    setTimer: (run, ms) => {
      const timer = { run, ms, cleared: false };
      timers.push(timer);
      return timer;
    },
    clearTimer: (timer: never) => {
      (timer as { cleared: boolean }).cleared = true;
    },
  });
  const topics = (socket: Played) =>
    socket.sent.map((text) => JSON.parse(text)).map(({ type, topic }) => `${type} ${topic}`);
  return { live, sockets, timers, topics };
}

test('opens with the first topic, and subscribes once for several holders', () => {
  const { live, sockets, topics } = setUp();
  expect(sockets).toHaveLength(0);
  const first = live.hold('workspaces');
  const second = live.hold('workspaces');
  sockets[0]!.onopen?.();
  expect(live.state()).toBe('live');
  live.hold('build:1');
  first();
  first();
  expect(topics(sockets[0]!)).toEqual(['subscribe workspaces', 'subscribe build:1']);
  second();
  expect(topics(sockets[0]!)).toEqual([
    'subscribe workspaces',
    'subscribe build:1',
    'unsubscribe workspaces',
  ]);
});

test('a lost connection is retried with backoff, and its topics are subscribed again', () => {
  const { live, sockets, timers, topics } = setUp();
  const states: string[] = [];
  live.onState(() => states.push(live.state()));
  live.hold('workspaces');
  sockets[0]!.onopen?.();
  sockets[0]!.onclose?.();
  expect(live.state()).toBe('reconnecting');
  timers[0]!.run();
  sockets[1]!.onclose?.();
  timers[1]!.run();
  expect(timers[1]!.ms).toBeGreaterThan(timers[0]!.ms / 2);
  sockets[2]!.onopen?.();
  expect(topics(sockets[2]!)).toEqual(['subscribe workspaces']);
  expect(states).toEqual(['live', 'reconnecting', 'live']);
});

test('delays double up to a limit, with jitter', () => {
  expect(retryDelay(0, () => 0)).toBe(250);
  expect(retryDelay(0, () => 1)).toBe(500);
  expect(retryDelay(3, () => 1)).toBe(4000);
  expect(retryDelay(30, () => 1)).toBe(15_000);
});

test('a hidden tab has no topics, and gets them back when it is visible', () => {
  const { live, sockets, topics } = setUp();
  live.hold('workspaces');
  sockets[0]!.onopen?.();
  live.setVisible(false);
  expect(live.state()).toBe('paused');
  live.setVisible(true);
  expect(topics(sockets[0]!)).toEqual([
    'subscribe workspaces',
    'unsubscribe workspaces',
    'subscribe workspaces',
  ]);
});

test('a tab that is hidden while disconnected does not reconnect until it is visible', () => {
  const { live, sockets, timers } = setUp();
  live.hold('workspaces');
  sockets[0]!.onopen?.();
  sockets[0]!.onclose?.();
  live.setVisible(false);
  expect(timers[0]!.cleared).toBe(true);
  live.setVisible(true);
  expect(sockets).toHaveLength(2);
});

test('opened in a hidden tab, it connects when the tab is visible', () => {
  const { live, sockets } = setUp(false);
  live.hold('workspaces');
  expect(sockets).toHaveLength(0);
  live.setVisible(true);
  expect(sockets).toHaveLength(1);
});

test('passes on valid messages only', () => {
  const { live, sockets } = setUp();
  const messages: string[] = [];
  live.onMessage((message) => messages.push(message.type));
  live.hold('workspaces');
  sockets[0]!.onmessage?.({ data: '{"type":"resync","topic":"workspaces"}' });
  sockets[0]!.onmessage?.({ data: '{"type":"news","topic":"workspaces"}' });
  sockets[0]!.onmessage?.({ data: 'not JSON' });
  sockets[0]!.onmessage?.({ data: new ArrayBuffer(1) });
  expect(messages).toEqual(['resync']);
});
