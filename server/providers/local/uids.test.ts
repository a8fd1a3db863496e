import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { makeUids, trialUid } from './uids.ts';

const folders: string[] = [];
async function server() {
  const folder = await mkdtemp(join(tmpdir(), 'cde-uids-'));
  folders.push(folder);
  return makeUids({ directory: join(folder, 'uids') });
}
afterEach(async () => {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true });
});

test.skipIf(trialUid() === null)(
  'a workspace keeps its uid, which differs from those of all others, also of another server on this machine',
  async () => {
    const [one, two] = [await server(), await server()];
    const first = await one.of('w1');
    expect(await one.of('w1')).toBe(first);
    const uids = [first, await one.of('w2'), await two.of('w1'), await two.of('w2')];
    expect(new Set(uids).size).toBe(4);
    expect(uids).not.toContain(trialUid());
  },
);

test.skipIf(trialUid() === null)('a released uid can be assigned again', async () => {
  const uids = await server();
  const uid = await uids.of('w1');
  await uids.release('w1');
  expect(await uids.of('w2')).toBe(uid);
});
