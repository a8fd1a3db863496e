import { eq } from 'drizzle-orm';
import { v7 } from 'uuid';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { buildLogSizes, builds } from '../../database/schema.ts';
import { makeTestServer, type TestServer, type TestUser } from '../../testing.ts';
import { appendLog, maxBytes, maxLines, type NewLine, readLog } from './build-log.ts';
import { removeOldLogs } from './build-log-sweep.ts';

let server: TestServer;
let owner: TestUser;
beforeAll(async () => {
  server = await makeTestServer();
  owner = await server.addUser('talker', 'owner');
  const files = { 'template.yaml': 'name: plain\nprovider: local\n' };
  await server.request(owner, 'POST', '/api/v1/templates', { files });
});
afterAll(() => server.close());

/** A build of a new workspace, and an agent that writes to its log. */
async function makeBuild(name: string) {
  const made = await server.request(owner, 'POST', '/api/v1/workspaces', { name, template: 'plain' });
  const id = made.body.latestBuild.id as string;
  let seq = 0;
  const append = (lines: NewLine[]) => server.database.db.transaction((tx) => appendLog(tx, id, lines));
  return {
    id,
    workspaceId: made.body.id as string,
    append,
    say: (count: number, text = 'x') =>
      append(
        Array.from({ length: count }, (): NewLine => {
          seq += 1;
          return { ...line('startup', text), agent: { process: 'p', seq } };
        }),
      ),
    texts: async () => (await readLog(server.database.db, id, 0, 100_000)).map(({ text }) => text),
  };
}
const line = (source: NewLine['source'], text: string): NewLine => ({
  at: new Date(),
  stage: 'startup',
  source,
  level: 'info',
  text,
});
const full =
  'The log of this build is full (at most 2 MiB and 20000 lines). Further output of the agent and the startup script is not stored.';

test('an agent that prints without end fills its own log, up to a limit', async () => {
  const { say, append, texts } = await makeBuild('loud');
  for (let batch = 0; batch < 5; batch++) await say(maxLines / 4);
  await say(1);
  const all = await texts();
  expect(all.length).toBeLessThanOrEqual(maxLines);
  expect(all.at(-1)).toBe(full);
  expect(all.filter((text) => text === full)).toHaveLength(1);
  // The server's own lines always fit.
  await append([line('server', 'stopped')]);
  await say(1);
  expect((await texts()).slice(-2)).toEqual([full, 'stopped']);
});

test('long lines count by their size, and the log says where it was cut', async () => {
  const { say, texts } = await makeBuild('wordy');
  for (let batch = 0; batch < 5; batch++) await say(50, 'ä'.repeat(8_000));
  const all = await texts();
  expect(Buffer.byteLength(all.join(''))).toBeLessThan(maxBytes + 1_000);
  expect(all.length).toBeGreaterThan(100);
  expect(all.at(-1)).toBe(full);
});

test('only the logs of the last builds are kept, and the others say that they were removed', async () => {
  const { db } = server.database;
  const first = await makeBuild('old');
  const other = await makeBuild('other');
  await first.say(3);
  await other.say(3);
  const ids = [first.id];
  const [row] = await db.select().from(builds).where(eq(builds.id, first.id));
  for (let number = 2; number <= 4; number++) {
    const id = v7();
    await db
      .insert(builds)
      .values({ ...row!, id, number, status: 'succeeded', finishedAt: new Date(), agentTokenHash: null });
    await db.transaction((tx) =>
      appendLog(tx, id, [line('server', `build ${number}`), line('server', 'end')]),
    );
    ids.push(id);
  }
  const logs = () =>
    Promise.all(ids.map(async (id) => (await readLog(db, id, 0, 10)).map(({ text }) => text)));

  // The first is unfinished.
  expect(await removeOldLogs(server.database, 2)).toBe(1);
  const gone = ['The log of this build was removed. Logs are kept for the last 2 builds of a workspace.'];
  const newest = [
    ['build 3', 'end'],
    ['build 4', 'end'],
  ];
  expect((await logs()).slice(1)).toEqual([gone, ...newest]);
  expect((await logs())[0]!.length).toBeGreaterThanOrEqual(3);

  await db.update(builds).set({ finishedAt: new Date() }).where(eq(builds.id, first.id));
  expect(await removeOldLogs(server.database, 2)).toBe(1);
  expect(await removeOldLogs(server.database, 2)).toBe(0);
  expect(await logs()).toEqual([gone, gone, ...newest]);
  expect((await other.texts()).length).toBeGreaterThanOrEqual(3);
  const reply = await server.request(owner, 'GET', `/api/v1/builds/${ids[1]}/log`);
  expect(reply.body.lines).toMatchObject([{ source: 'server', level: 'warn', text: gone[0] }]);
  const [size] = await db.select().from(buildLogSizes).where(eq(buildLogSizes.buildId, first.id));
  expect(size).toMatchObject({ bytes: 0, removed: true });
});
