import { once } from 'node:events';
import type { ServerMessage } from '@cde/api/events.ts';
import { afterAll, beforeAll, expect, test } from 'vitest';
import WebSocket from 'ws';
import { makeTestServer, type TestServer, type TestUser } from '../testing.ts';
import { appendLog, type NewLine } from './builds/build-log.ts';

/** What users other than the owner can do with a workspace and see of it. */
let server: TestServer;
let ada: TestUser;
let owner: TestUser;
let auditor: TestUser;
let build: string;
beforeAll(async () => {
  server = await makeTestServer();
  ada = await server.addUser('ada');
  owner = await server.addUser('boss', 'owner');
  auditor = await server.addUser('eyes', 'auditor');
  await publish(server, owner, 'echo hello');
  const made = await server.request(ada, 'POST', '/api/v1/workspaces', { name: 'box', template: 'plain' });
  build = made.body.latestBuild.id;
});
afterAll(() => server.close());

const publish = (to: TestServer, user: TestUser, script: string) =>
  to.request(user, 'POST', '/api/v1/templates', {
    files: { 'template.yaml': `name: plain\nprovider: local\nstartup:\n  script: ${script}\n` },
  });
const line = (source: NewLine['source'], text: string): NewLine => ({
  ...{ at: new Date(), stage: 'startup', source, level: 'info', text },
  ...(source === 'startup' && { agent: { process: 'p', seq: Number(text.replace(/\D/g, '')) } }),
});
const say = (...lines: NewLine[]) => server.database.db.transaction((tx) => appendLog(tx, build, lines));
const logOf = async (user: TestUser, after = 0, limit = 1000) =>
  (
    await server.request(user, 'GET', `/api/v1/builds/${build}/log?after=${after}&limit=${limit}`)
  ).body.lines.map(({ seq, text }: { seq: number; text: string }) => [seq, text]);

test("a server owner cannot move another user's workspace to a version that the user has not chosen", async () => {
  await publish(server, owner, 'cat ~/.ssh/id_ed25519');
  for (const body of [{}, { parameters: {} }]) {
    const update = await server.request(owner, 'POST', '/api/v1/workspaces/ada~box/update', body);
    expect(update).toMatchObject({ status: 409, body: { code: 'owner-must-agree' } });
  }
  const me = async (to: TestServer, user: TestUser) =>
    (await to.request(user, 'GET', '/api/v1/users/me')).body.canUpdateForeign;
  expect(await me(server, owner)).toBe(false);
  const home = await server.request(owner, 'POST', '/api/v1/workspaces', {
    ...{ name: 'again', owner: 'ada', template: 'plain', home: build },
  });
  expect(home).toMatchObject({ status: 409, body: { code: 'owner-must-agree' } });
  // Restarting it unchanged is allowed.
  const restart = await server.request(owner, 'POST', '/api/v1/workspaces/ada~box/restart', {});
  expect(restart).toMatchObject({ status: 202, body: { templateVersion: 1 } });
  const update = await server.request(ada, 'POST', '/api/v1/workspaces/box/update', {});
  expect([202, 409]).toContain(update.status);
  expect(update.body.code).not.toBe('owner-must-agree');
});

test('the server can allow such updates, and audits each', async () => {
  const open = await makeTestServer({ CDE_FOREIGN_UPDATES: 'on' });
  const boss = await open.addUser('boss', 'owner');
  const bob = await open.addUser('bob');
  await publish(open, boss, 'echo hello');
  await open.request(bob, 'POST', '/api/v1/workspaces', { name: 'box', template: 'plain', start: false });
  await publish(open, boss, 'echo again');
  const update = await open.request(boss, 'POST', '/api/v1/workspaces/bob~box/update', {});
  expect(update).toMatchObject({ status: 202, body: { templateVersion: 2 } });
  const { body: me } = await open.request(boss, 'GET', '/api/v1/users/me');
  expect(me.canUpdateForeign).toBe(true);
  expect((await open.request(bob, 'GET', '/api/v1/users/me')).body.canUpdateForeign).toBe(false);
  const { body } = await open.request(boss, 'GET', '/api/v1/audit?action=workspace.update');
  expect(body.items).toMatchObject([{ actor: 'boss', targetName: 'box' }]);
  await open.close();
});

test("the output of startup and shutdown scripts is visible only to the workspace's owner", async () => {
  const [before] = (await logOf(ada)).slice(-1);
  const last = before?.[0] ?? 0;
  await say(
    line('server', 'begin'),
    line('startup', 'secret 1'),
    line('startup', 'secret 2'),
    line('server', 'middle'),
    line('startup', 'secret 3'),
    line('shutdown', 'secret 4'),
  );
  const texts = ['begin', 'secret 1', 'secret 2', 'middle', 'secret 3', 'secret 4'];
  expect(await logOf(ada, last)).toEqual(texts.map((text, index) => [last + 1 + index, text]));
  const two = "(2 lines of the startup script, visible only to the workspace's owner.)";
  const one = "(1 line of the startup script, visible only to the workspace's owner.)";
  const shutdown = "(1 line of the shutdown script, visible only to the workspace's owner.)";
  for (const other of [auditor, owner]) {
    expect(await logOf(other, last)).toEqual([
      [last + 1, 'begin'],
      [last + 3, two],
      [last + 4, 'middle'],
      [last + 5, one],
      [last + 6, shutdown],
    ]);
    // Reading page by page reveals nothing either, and misses no line.
    expect(await logOf(other, last + 1, 1)).toEqual([[last + 2, one]]);
  }
});

test("live events do not show the startup script's output to others", async () => {
  const url = (await server.app.listen({ port: 0, host: '127.0.0.1' })).replace('http', 'ws');
  const listen = async (user: TestUser) => {
    const socket = new WebSocket(`${url}/api/v1/events`, {
      headers: { authorization: `Bearer ${user.token}` },
    });
    const texts: string[] = [];
    socket.on('message', (data) => {
      const message = JSON.parse(String(data)) as ServerMessage;
      if (message.type === 'log') texts.push(...message.lines.map(({ text }) => text));
    });
    await once(socket, 'open');
    socket.send(JSON.stringify({ type: 'subscribe', topic: `build:${build}` }));
    await once(socket, 'message');
    return { socket, texts };
  };
  const [mine, theirs] = [await listen(ada), await listen(auditor)];
  await server.database.db.transaction(async (tx) => {
    await appendLog(tx, build, [line('startup', 'secret 9'), line('server', 'over')]);
  });
  const made = await server.request(ada, 'GET', '/api/v1/workspaces/box');
  server.bus.publish({ workspaceId: made.body.id, buildId: build });
  await expect.poll(() => mine.texts, { timeout: 20_000 }).toEqual(['secret 9', 'over']);
  await expect.poll(() => theirs.texts.at(-1), { timeout: 20_000 }).toBe('over');
  expect(theirs.texts.join()).not.toContain('secret');
  mine.socket.terminate();
  theirs.socket.terminate();
});
