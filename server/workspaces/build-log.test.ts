import { afterAll, beforeAll, expect, test } from 'vitest';
import { makeTestServer, type TestServer } from '../testing.ts';
import { appendLog, mostLines, type NewLine, readLog } from './build-log.ts';

let server: TestServer;
beforeAll(async () => {
  server = await makeTestServer();
});
afterAll(() => server.close());

test('an agent that talks without end fills its own log, and no more', async () => {
  const owner = await server.addUser('talker', 'owner');
  const files = { 'template.yaml': 'name: plain\nprovider: local\n' };
  await server.request(owner, 'POST', '/api/v1/templates', { files });
  const made = await server.request(owner, 'POST', '/api/v1/workspaces', { name: 'loud', template: 'plain' });
  const build = made.body.latestBuild.id;
  const { db } = server.database;
  let seq = 0;
  const say = (count: number) =>
    db.transaction((tx) =>
      appendLog(
        tx,
        build,
        Array.from({ length: count }, (): NewLine => {
          seq += 1;
          const agent = { process: 'p', seq };
          return { at: new Date(), stage: 'startup', source: 'startup', level: 'info', text: 'x', agent };
        }),
      ),
    );
  for (let batch = 0; batch < 5; batch++) await say(mostLines / 4);
  await say(1);
  const end = async () => (await readLog(db, build, mostLines - 1, 100)).map(({ text }) => text);
  const full = `The log of this build is full (${mostLines} lines); what its agent says from here on is dropped.`;
  expect(await end()).toEqual([full]);
  const stopped: NewLine = {
    ...{ at: new Date(), stage: 'startup', source: 'server', level: 'info' },
    text: 'stopped',
  };
  await db.transaction((tx) => appendLog(tx, build, [stopped]));
  expect(await end()).toEqual([full, 'stopped']);
});
