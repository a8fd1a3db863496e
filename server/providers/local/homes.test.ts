import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { makeHomes } from './homes.ts';
import { isRoot } from './testing.ts';
import { makeUids } from './uids.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'cde-homes-'));
  mkdirSync(join(root, 'skel/.config'), { recursive: true });
  writeFileSync(join(root, 'skel/.bashrc'), 'first');
  writeFileSync(join(root, 'skel/.config/tool'), 'tool');
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const setUp = () => makeHomes({ directory: join(root, 'homes'), skeleton: join(root, 'skel') });

test('a new home is private and has the skeleton', async () => {
  const homes = setUp();
  expect(await homes.ensure('w1', null)).toEqual({
    created: true,
    added: expect.arrayContaining(['.bashrc', '.config/tool']),
  });
  expect(statSync(homes.path('w1')).mode & 0o777).toBe(0o700);
  expect(readFileSync(join(homes.path('w1'), '.config/tool'), 'utf8')).toBe('tool');
  expect(await homes.ensure('w1', null)).toEqual({ created: false, added: [] });
});

test("new skeleton files are added to an existing home, without overwriting or restoring the developer's", async () => {
  const homes = setUp();
  const home = homes.path('w1');
  writeFileSync(join(root, 'skel/.profile'), 'profile');
  writeFileSync(join(root, 'skel/.untouched'), 'old');
  await homes.ensure('w1', null);
  writeFileSync(join(home, '.bashrc'), 'mine');
  writeFileSync(join(home, '.vimrc'), 'mine too');
  unlinkSync(join(home, '.profile'));

  writeFileSync(join(root, 'skel/.bashrc'), 'second');
  writeFileSync(join(root, 'skel/.vimrc'), 'theirs');
  writeFileSync(join(root, 'skel/.untouched'), 'newer');
  writeFileSync(join(root, 'skel/.fresh'), 'fresh');
  expect((await homes.ensure('w1', null)).added.sort()).toEqual(['.fresh', '.untouched']);
  expect(readFileSync(join(home, '.bashrc'), 'utf8')).toBe('mine');
  expect(readFileSync(join(home, '.vimrc'), 'utf8')).toBe('mine too');
  expect(readFileSync(join(home, '.untouched'), 'utf8')).toBe('newer');
  expect(existsSync(join(home, '.profile'))).toBe(false);
});

test('writes do not follow symlinks out of a home', async () => {
  const homes = setUp();
  const home = homes.path('w1');
  mkdirSync(home, { recursive: true });
  mkdirSync(join(root, 'elsewhere'));
  symlinkSync(join(root, 'elsewhere'), join(home, '.config'));
  symlinkSync(join(root, 'elsewhere/written'), join(home, '.bashrc'));
  await homes.ensure('w1', null);
  expect(readdirSync(join(root, 'elsewhere'))).toEqual([]);
});

test.runIf(isRoot)('an entire home changes its owner, without following links out of it', async () => {
  const homes = setUp();
  const home = homes.path('w1');
  await homes.ensure('w1', 1_900_000_007);
  mkdirSync(join(home, 'deep/er'), { recursive: true });
  writeFileSync(join(root, 'outside'), '');
  symlinkSync(join(root, 'outside'), join(home, 'deep/link'));
  await homes.ensure('w1', 1_900_000_008);
  expect(statSync(join(home, 'deep/er')).uid).toBe(1_900_000_008);
  expect(statSync(join(home, '.bashrc')).uid).toBe(1_900_000_008);
  expect(statSync(home).uid).toBe(1_900_000_008);
  expect(statSync(join(root, 'outside')).uid).toBe(0);
});

test('a retained home is deleted after the grace period, a discarded one at once', async () => {
  const homes = setUp();
  const at = new Date(1_800_000_000_000);
  await homes.ensure('w1', null);
  writeFileSync(join(homes.path('w1'), 'notes'), 'n');
  expect(await homes.retain('w1', 'keep', at)).toBe(true);
  expect(await homes.retain('w1', 'keep', at)).toBe(false);
  const kept = join(root, 'homes/.set-aside/w1.1800000000000');
  expect(readFileSync(join(kept, 'notes'), 'utf8')).toBe('n');

  await homes.ensure('w2', null);
  mkdirSync(join(homes.path('w2'), 'modules'));
  writeFileSync(join(homes.path('w2'), 'modules/a'), '');
  chmodSync(join(homes.path('w2'), 'modules'), 0o500);
  await homes.retain('w2', 'doom', at);
  await homes.finishDelete('w2');
  expect(await homes.exists('w2')).toBe(false);

  // Killed between the rename and the deletion: the purge finishes it, whatever its age.
  await homes.ensure('w3', null);
  await homes.retain('w3', 'doom', at);
  expect(await homes.purge({ retainedBefore: at })).toEqual(['w3']);
  expect(existsSync(kept)).toBe(true);
  expect(await homes.purge({ retainedBefore: new Date(at.getTime() + 1) })).toEqual(['w1']);
  expect(await homes.purge({})).toEqual([]);
  expect((await homes.ensure('w1', null)).added).toContain('.bashrc');
  await homes.retain('w1', 'doom', at);
  expect(readdirSync(join(root, 'homes/.delivered'))).toEqual([]);
});

test.runIf(isRoot)('a uid is assigned to only one workspace, also by concurrent servers', async () => {
  const [a, b] = [makeUids({ directory: join(root, 'uids') }), makeUids({ directory: join(root, 'uids') })];
  const given = await Promise.all(
    ['w1', 'w2', 'w3', 'w1', 'w2', 'w3'].map((id, index) => (index < 3 ? a : b).of(id)),
  );
  expect(given.slice(0, 3)).toEqual(given.slice(3));
  expect(new Set(given).size).toBe(3);
  await a.release('w2');
  expect([given[0], given[2]]).not.toContain(await b.of('w4'));
  expect(await b.of('w1')).toBe(given[0]);
});

test('replicas that move the same home at once do not fail each other, and never lose it', async () => {
  const replicas = Array.from({ length: 8 }, setUp);
  await replicas[0]!.ensure('w1', null);
  writeFileSync(join(replicas[0]!.path('w1'), 'notes'), 'kept');
  const together = <T>(work: (homes: (typeof replicas)[number]) => Promise<T>) =>
    Promise.all(replicas.map(work));
  let at = 1_000;
  for (let round = 0; round < 20; round++) {
    const now = new Date(at++);
    const retained = await together((homes) => homes.retain('w1', 'keep', now));
    expect(retained.filter(Boolean)).toHaveLength(1);
    expect(await together((homes) => homes.restore('w1', 'w2'))).toEqual(replicas.map(() => true));
    expect(readFileSync(join(replicas[0]!.path('w2'), 'notes'), 'utf8')).toBe('kept');
    await together((homes) => homes.giveBack('w1', 'w2', now));
    expect(await together((homes) => homes.restore('w1', 'w1'))).toEqual(replicas.map(() => true));
    expect(readFileSync(join(replicas[0]!.path('w1'), 'notes'), 'utf8')).toBe('kept');
  }
});
