import { PassThrough } from 'node:stream';
import { formatVisit, type PortVisit, parseVisit } from '@cde/tunnel/streams/visits.ts';
import { expect, test } from 'vitest';
import { makeActivity } from './activity.ts';
import { makePortVisits } from './port-visits.ts';

const minute = 60_000;

function start() {
  let now = 0;
  const hits: string[] = [];
  const activity = makeActivity({ now: () => now });
  const visits = makePortVisits(activity);
  activity.observe(() => hits.push(`${Math.round(now / 1000)} ${activity.report().signals[0]!.by}`));
  return {
    hits,
    async visit(seconds: number, more: Partial<PortVisit> = {}, lastsSeconds = 0) {
      now = seconds * 1000;
      const client = new PassThrough();
      visits.opened(
        3000,
        { kind: 'request', key: 'page', username: 'ada', ...more },
        client,
        new PassThrough(),
      );
      if (lastsSeconds > 0) now += lastsSeconds * 1000;
      client.destroy();
      await new Promise((resolve) => client.once('close', resolve));
    },
  };
}

test('navigations and clicks count, by name; the port where the name is not known', async () => {
  const { visit, hits } = start();
  await visit(10, { kind: 'navigation' });
  await visit(95, { key: 'items' });
  await visit(111, { key: 'item', username: null });
  expect(hits).toEqual(['10 ada', '95 ada', '111 port 3000']);
});

test.each([5, 60])('a page that polls every %d s does not, after the first requests', async (seconds) => {
  const { visit, hits } = start();
  for (let at = seconds; at < 8 * 3600; at += seconds) await visit(at + (at % 7) / 20);
  expect(hits.length).toBeLessThan(5);
});

test('nor do two tabs with two polls each, or a counter in each path', async () => {
  const { visit, hits } = start();
  for (let at = 10; at < 3600; at += 10)
    for (const [after, key] of [
      [0, 'a'],
      [1, 'b'],
      [4, 'a'],
      [6.5, 'b'],
    ] as const)
      await visit(at + after, { key });
  const before = hits.length;
  expect(before).toBeLessThan(16);
  for (let at = 4000; at < 7200; at += 10) await visit(at, { key: `n${at}` });
  expect(hits.length - before).toBeLessThan(6);
});

test('a click while the page polls counts', async () => {
  const { visit, hits } = start();
  for (let at = 5; at < 600; at += 5) await visit(at);
  hits.length = 0;
  await visit(602, { key: 'save' });
  expect(hits).toEqual(['602 ada']);
});

test('long polls do not count, however irregularly they are answered', async () => {
  const { visit, hits } = start();
  let at = 10;
  for (const lasts of [30, 12, 25, 7, 19, 44, 6, 30, 9]) {
    await visit(at, {}, lasts);
    at += lasts + 0.1;
  }
  expect(hits).toEqual(['10 ada']);
});

test('nobody is signed in, or nobody did it', async () => {
  const { visit, hits } = start();
  await visit(10, { kind: 'other' });
  expect(hits).toEqual([]);
});

test('a WebSocket that only keeps alive does not count, and input over it does', () => {
  let now = 0;
  const activity = makeActivity({ now: () => now });
  const client = new PassThrough();
  const visit: PortVisit = { kind: 'socket', key: 'ws', username: 'ada' };
  makePortVisits(activity).opened(3000, visit, client, new PassThrough());
  for (; now < 10 * minute; now += 5000) client.emit('data', Buffer.alloc(13));
  expect(activity.report().signals).toEqual([]);
  for (let key = 0; key < 5; key += 1, now += 400) client.emit('data', Buffer.alloc(150));
  expect(activity.report().signals).toMatchObject([{ signal: 'port-visit', by: 'ada' }]);
});

test('the header', () => {
  const visit: PortVisit = { kind: 'navigation', key: 'a-b_c', username: 'ada lovelace' };
  expect(parseVisit(formatVisit(visit))).toEqual(visit);
  expect(parseVisit(formatVisit({ ...visit, username: null }))).toEqual({ ...visit, username: null });
  expect(parseVisit(undefined)).toBeNull();
  for (const text of ['', 'navigation', 'x y z', 'request a %', `request ${'a'.repeat(500)}`])
    expect(parseVisit(text)).toMatchObject({ kind: 'other' });
});
