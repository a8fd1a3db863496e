import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { duplexPair } from 'node:stream';
import { findRoot, makeDiskTree } from '@cde/filesync/disk.ts';
import type { Entries } from '@cde/filesync/entries.ts';
import { openRemoteTree } from '@cde/filesync/remote.ts';
import { serveTree } from '@cde/filesync/serve.ts';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { makeEngine, type SyncEvent } from './engine.ts';
import { makeConflictName } from './names.ts';
import { makeIsRuleFile } from './rule-files.ts';
import { markRuleFiles, openRuleMarks, type RuleMarks } from './rule-marks.ts';
import { makeRuleReader } from './rule-reader.ts';

/** A laptop's folder with secrets, and a workspace in which anything may run. */
let folder: string;
let here: string;
let there: string;
let marks: RuleMarks;
let base: Entries;
let events: SyncEvent[];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cde-rules-'));
  here = await findRoot(join(folder, 'here'), true);
  there = await findRoot(join(folder, 'there'), true);
  marks = openRuleMarks({ CDE_CONFIG_DIR: join(folder, 'config') });
  base = new Map();
  events = [];
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const put = async (path: string, text: string) => {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text);
};
const read = (path: string) => readFile(path, 'utf8').catch(() => null);

/** One `cde sync --once`, as a process of its own: nothing survives but the disk and the state. */
async function syncOnce(options: { gitignore?: boolean; rounds?: () => Promise<void>; local?: string } = {}) {
  const root = options.local ?? here;
  const input = { gitignore: options.gitignore ?? false, git: false, ignore: [] };
  const local = markRuleFiles(makeDiskTree(root), root, marks);
  const [stream, other] = duplexPair();
  void serveTree(other, { home: folder });
  const remote = await openRemoteTree(stream, { root: 'there', create: false });
  const engine = makeEngine({
    local,
    base,
    save(now) {
      base = new Map(now);
    },
    rules: makeRuleReader(root, input, marks, async () => {}),
    isRuleFile: makeIsRuleFile(input),
    conflictName: makeConflictName('web', () => new Date('2026-11-21T10:45:00Z')),
    allowEmpty: false,
    tell: (event) => events.push(event),
  });
  try {
    const settled = await engine.once(remote);
    if (!options.rounds) return settled;
    await options.rounds();
    return await engine.once(remote);
  } finally {
    local.close();
    remote.close();
  }
}
const rulesEvents = () => events.filter(({ event }) => event === 'rules');

describe.each([
  ['.cdeignore', false],
  ['.gitignore', true],
] as const)('%s', (name, gitignore) => {
  beforeEach(async () => {
    await put(join(here, '.env'), 'SECRET');
    await put(join(here, 'app.ts'), 'app');
    await put(join(here, name), '.env\n');
    await syncOnce({ gitignore });
    expect((await readdir(there)).sort()).toEqual([name, 'app.ts']);
  });

  const attacks: [string, () => Promise<void>, string][] = [
    ['emptied', () => writeFile(join(there, name), ''), 'changed'],
    ['negated', () => writeFile(join(there, name), '.env\n!.env\n'), 'changed'],
    ['deleted', () => rm(join(there, name)), 'removed'],
    ['renamed', () => rename(join(there, name), join(there, 'other')), 'removed'],
    ['made executable', () => chmod(join(there, name), 0o755), 'changed'],
    [
      'replaced by a link',
      async () => {
        await put(join(there, 'empty'), '');
        await rm(join(there, name));
        await symlink('empty', join(there, name));
      },
      'changed',
    ],
    [
      'replaced by a folder',
      async () => {
        await rm(join(there, name));
        await put(join(there, name, 'x'), '');
      },
      'changed',
    ],
  ];
  it.each(
    attacks,
  )('%s by the workspace still applies, and the person is told once', async (_, attack, change) => {
    // Within a sync that runs, in the next one, and in one whose state was lost.
    expect(await syncOnce({ gitignore, rounds: attack })).toBe(true);
    expect(await syncOnce({ gitignore })).toBe(true);
    base = new Map();
    await syncOnce({ gitignore });
    expect(await readdir(there)).not.toContain('.env');
    expect(await read(join(here, name))).toBe('.env\n');
    expect(rulesEvents()[0]).toEqual({ event: 'rules', path: name, change });
  });

  it('changed here applies at once, and goes to the workspace; its version is kept beside', async () => {
    await put(join(there, name), 'app.ts\n');
    await put(join(here, name), '# none\n');
    expect(await syncOnce({ gitignore })).toBe(true);
    expect(await read(join(there, '.env'))).toBe('SECRET');
    expect(await read(join(there, name))).toBe('# none\n');
    expect(await read(join(here, `${name}.conflict-web-20261121-104500`))).toBe('app.ts\n');
  });

  it('deleted here is deleted there, and what it excluded is copied', async () => {
    await rm(join(here, name));
    expect(await syncOnce({ gitignore })).toBe(true);
    expect(await read(join(there, name))).toBeNull();
    expect(await read(join(there, '.env'))).toBe('SECRET');
  });

  it('that the person deleted does not come back from the workspace', async () => {
    await rm(join(here, name));
    await put(join(there, name), '!node_modules\n');
    await syncOnce({ gitignore });
    expect(await read(join(here, name))).toBeNull();
  });
});

describe('rule files that only the workspace has', () => {
  it('are not taken, in any spelling and at any depth', async () => {
    await put(join(here, 'node_modules/key'), 'SECRET');
    await put(join(there, '.cdeignore'), '!node_modules\n');
    await put(join(there, '.CdeIgnore'), '!node_modules\n');
    await put(join(there, '.cde\u200cignore'), '!node_modules\n');
    await put(join(there, 'sub/.cdeignore'), '!node_modules\n');
    await put(join(there, 'sub/code.ts'), 'code');
    expect(await syncOnce()).toBe(true);
    expect((await readdir(here)).sort()).toEqual(['node_modules', 'sub']);
    expect(await readdir(join(here, 'sub'))).toEqual(['code.ts']);
    expect(await readdir(there)).not.toContain('node_modules');
    expect(rulesEvents()).toHaveLength(4);
  });

  it('a folder that the workspace deletes leaves its rule file here', async () => {
    await put(join(here, 'sub/.cdeignore'), '.env\n');
    await put(join(here, 'sub/a'), 'a');
    await put(join(here, 'b'), 'b');
    await syncOnce();
    await rm(join(there, 'sub'), { recursive: true });
    await syncOnce();
    await syncOnce();
    expect(await readdir(join(here, 'sub'))).toEqual(['.cdeignore']);
    await rm(join(there, 'sub'), { recursive: true });
    await put(join(there, 'sub'), 'a file now');
    await syncOnce();
    expect(await readdir(join(here, 'sub'))).toEqual(['.cdeignore']);
  });
});

describe('a .gitignore that the workspace wrote while it was no rule file', () => {
  const refused = expect.objectContaining({ code: 'sync-rules-from-workspace' });

  it('does not become one until the person saves it', async () => {
    await put(join(here, '.gitignore'), 'later.key\n');
    await put(join(here, 'a'), 'a');
    await syncOnce();
    await put(join(there, '.gitignore'), '');
    await syncOnce();
    expect(await read(join(here, '.gitignore'))).toBe('');
    await put(join(here, 'later.key'), 'SECRET');
    await expect(syncOnce({ gitignore: true })).rejects.toEqual(refused);
    // Another sync, or one that forgets, asks the same.
    base = new Map();
    await expect(syncOnce({ gitignore: true })).rejects.toEqual(refused);
    expect(await readdir(there)).not.toContain('later.key');
    await utimes(join(here, '.gitignore'), new Date(), new Date());
    expect(await syncOnce({ gitignore: true })).toBe(true);
    expect(await readdir(there)).toContain('later.key');
  });

  it('nor does one that it deleted, or that lies in a folder below', async () => {
    await put(join(here, '.gitignore'), '.env\n');
    await put(join(here, 'sub/.gitignore'), '.env\n');
    await put(join(here, 'a'), 'a');
    await syncOnce();
    await rm(join(there, '.gitignore'));
    await put(join(there, 'sub/.gitignore'), '');
    await syncOnce();
    await expect(syncOnce({ gitignore: true })).rejects.toEqual(refused);
    await expect(syncOnce({ gitignore: true, local: join(here, 'sub') })).rejects.toEqual(refused);
    await put(join(here, '.gitignore'), '');
    await expect(syncOnce({ gitignore: true })).resolves.toBe(true);
  });
});

describe('reading the rules', () => {
  const reader = (wait: () => Promise<void>) =>
    makeRuleReader(here, { gitignore: false, git: false, ignore: [] }, marks, wait);
  const file = () => join(here, '.cdeignore');

  it('a file that an editor empties or removes for a moment still applies', async () => {
    await put(file(), '.env\n');
    for (const save of [() => writeFile(file(), ''), () => rm(file())]) {
      const rules = reader(() => writeFile(file(), '.env\n*.key\n'));
      await rules();
      await save();
      expect((await rules()).lines).toEqual(expect.arrayContaining(['.env', '*.key']));
    }
  });

  it('a change that stays counts; a file that never rests keeps the rules from before', async () => {
    await put(file(), '.env\n');
    const settled = reader(async () => {});
    await settled();
    await rm(file());
    expect((await settled()).lines).not.toContain('.env');
    await put(file(), '.env\n');
    let count = 0;
    const restless = reader(() => {
      count += 1;
      return writeFile(file(), `${count}\n`);
    });
    await restless();
    await writeFile(file(), '');
    expect((await restless()).lines).toContain('.env');
  });
});
