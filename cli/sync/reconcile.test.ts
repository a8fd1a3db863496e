import { type Entries, type Entry, parentOf, sameEntry } from '@cde/filesync/entries.ts';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Action, applyToBase, otherSide, reconcile } from './reconcile.ts';

const file = (content: string, executable = false): Entry => ({
  kind: 'file',
  hash: content,
  size: content.length,
  executable,
});
const folder: Entry = { kind: 'folder' };
const link = (target: string): Entry => ({ kind: 'link', target });
const tree = (entries: Record<string, Entry>): Entries => new Map(Object.entries(entries));
const conflictName = (path: string, taken: (path: string) => boolean) => {
  let name = `${path}.conflict`;
  while (taken(name)) name += '+';
  return name;
};
const nobody: ReadonlySet<string> = new Set();

interface World {
  base: Entries;
  local: Entries;
  remote: Entries;
}

/** Does an action as a tree does: what is not as expected is refused. */
function perform(world: World, action: Action): void {
  const here = world[action.side];
  const there = world[otherSide(action.side)];
  const parent = parentOf(action.path);
  if (parent !== '' && here.get(parent)?.kind !== 'folder') throw new Error(`${action.path}: no folder`);
  const below = (path: string) => [...here.keys()].filter((each) => each.startsWith(`${path}/`));
  const expects = (entry: Entry | null) => {
    if (!sameEntry(here.get(action.path), entry)) throw new Error(`${action.path}: not as expected`);
  };
  switch (action.do) {
    case 'rename':
      expects(action.entry);
      if (here.has(action.to)) throw new Error(`${action.to} is taken`);
      for (const path of [action.path, ...below(action.path)]) {
        here.set(action.to + path.slice(action.path.length), here.get(path)!);
        here.delete(path);
      }
      break;
    case 'remove':
      expects(action.entry);
      if (below(action.path).length > 0) throw new Error(`${action.path} is not empty`);
      here.delete(action.path);
      break;
    case 'folder':
      expects(null);
      here.set(action.path, folder);
      break;
    case 'copy':
      if (!sameEntry(there.get(action.path), action.source))
        throw new Error(`${action.path}: another source`);
      expects(action.replaces);
      here.set(action.path, action.entry);
      break;
    default:
      expects(action.replaces);
      here.set(action.path, action.entry);
  }
}

/** One round; `fails` says which actions do not come about. */
function round(world: World, unknown = nobody, fails: (at: number) => boolean = () => false): number {
  const plan = reconcile(world, { unknown, conflictName });
  world.base = plan.base;
  plan.actions.forEach((action, at) => {
    if (fails(at)) return;
    try {
      perform(world, action);
    } catch (error) {
      // One that failed before takes others with it; else there is no reason.
      if (fails === never) throw error;
      return;
    }
    applyToBase(world.base, action);
  });
  return plan.actions.length;
}
const never = () => false;

function settle(world: World): void {
  for (let rounds = 0; round(world, nobody, never) > 0; rounds += 1) expect(rounds).toBeLessThan(4);
}

const plain = (entries: Entries) =>
  Object.fromEntries([...entries].sort(([one], [other]) => (one < other ? -1 : 1)));

describe('reconcile', () => {
  const both = { 'a.txt': file('1'), d: folder, 'd/x': file('x'), 'd/y': file('y'), l: link('a.txt') };
  const cases: [
    string,
    Record<string, Entry | null>,
    Record<string, Entry | null>,
    Record<string, Entry | null>,
  ][] = [
    ['nothing', {}, {}, {}],
    ['a change goes over', { 'a.txt': file('2') }, {}, { 'a.txt': file('2') }],
    ['both ways', { 'a.txt': file('2') }, { 'd/x': file('3') }, { 'a.txt': file('2'), 'd/x': file('3') }],
    ['the same change', { 'a.txt': file('2') }, { 'a.txt': file('2') }, { 'a.txt': file('2') }],
    ['a new file in a new folder', { n: folder, 'n/f': file('n') }, {}, { n: folder, 'n/f': file('n') }],
    ['a deletion', {}, { 'a.txt': null }, { 'a.txt': null }],
    ['a folder less', { d: null, 'd/x': null, 'd/y': null }, {}, { d: null, 'd/x': null, 'd/y': null }],
    [
      'a deletion against a change',
      { d: null, 'd/x': null, 'd/y': null },
      { 'd/x': file('new') },
      { 'd/x': file('new'), 'd/y': null },
    ],
    [
      'a folder less here, one file less there',
      { d: null, 'd/x': null, 'd/y': null },
      { 'd/x': null },
      { d: null, 'd/x': null, 'd/y': null },
    ],
    [
      'two changes',
      { 'a.txt': file('mine') },
      { 'a.txt': file('theirs') },
      { 'a.txt': file('mine'), 'a.txt.conflict': file('theirs') },
    ],
    [
      'content here, right to run there',
      { 'a.txt': file('2') },
      { 'a.txt': file('1', true) },
      { 'a.txt': file('2', true) },
    ],
    ['a right to run less', { 'a.txt': file('1', true) }, {}, { 'a.txt': file('1', true) }],
    [
      'a file becomes a folder',
      { 'a.txt': folder, 'a.txt/f': file('f') },
      {},
      { 'a.txt': folder, 'a.txt/f': file('f') },
    ],
    [
      'a folder becomes a file',
      { d: file('d'), 'd/x': null, 'd/y': null },
      {},
      { d: file('d'), 'd/x': null, 'd/y': null },
    ],
    [
      'a folder becomes a file, and something in it has changed',
      { d: file('d'), 'd/x': null, 'd/y': null },
      { 'd/x': file('new') },
      {
        d: file('d'),
        'd/x': null,
        'd/y': null,
        'd.conflict': folder,
        'd.conflict/x': file('new'),
        'd.conflict/y': file('y'),
      },
    ],
    ['a link', { l: link('d') }, {}, { l: link('d') }],
    ['a link becomes a file', { l: file('l') }, {}, { l: file('l') }],
    ['two links', { l: link('d') }, { l: link('d/x') }, { l: link('d'), 'l.conflict': link('d/x') }],
  ];
  const change = (changes: Record<string, Entry | null>) => {
    const changed = tree(both);
    for (const [path, entry] of Object.entries(changes)) {
      if (entry) changed.set(path, entry);
      else changed.delete(path);
    }
    return changed;
  };
  it.each(cases)('%s', (_, local, remote, result) => {
    const world = { base: tree(both), local: change(local), remote: change(remote) };
    settle(world);
    expect(plain(world.local)).toEqual(plain(change(result)));
    expect(plain(world.remote)).toEqual(plain(world.local));
    expect(plain(world.base)).toEqual(plain(world.local));
  });

  it('without a state of old: what one side lacks it gets, what differs stays twice', () => {
    const world = {
      base: tree({}),
      local: tree({ a: file('a'), s: file('same'), x: file('1'), e: file('e', true) }),
      remote: tree({ b: file('b'), s: file('same'), x: file('2'), e: file('e') }),
    };
    settle(world);
    expect(plain(world.local)).toEqual({
      a: file('a'),
      b: file('b'),
      e: file('e', true),
      s: file('same'),
      x: file('1'),
      'x.conflict': file('2'),
    });
    expect(plain(world.remote)).toEqual(plain(world.local));
  });

  it('leaves alone what is not known, on either side, and the folders that it is in', () => {
    const world = {
      base: tree(both),
      local: tree({ 'a.txt': file('2') }),
      remote: tree({ ...both, 'd/x': file('new') }),
    };
    const plan = reconcile(world, { unknown: new Set(['d/y', 'a.txt']), conflictName });
    expect(plan.actions.map(({ do: what, side, path }) => `${what} ${side} ${path}`)).toEqual([
      'remove remote l',
      'folder local d',
      'copy local d/x',
    ]);
    expect(plan.base.get('d/y')).toEqual(file('y'));
    // All of it: as when a root cannot be read.
    expect(reconcile(world, { unknown: new Set(['']), conflictName })).toEqual({
      actions: [],
      base: world.base,
    });
  });
});

describe('reconcile, whatever happens', () => {
  const names = fc.constantFrom('a', 'b', 'c');
  const paths = fc.array(names, { minLength: 1, maxLength: 3 }).map((parts) => parts.join('/'));
  const entries = fc.oneof(
    {
      weight: 5,
      arbitrary: fc.tuple(fc.constantFrom('1', '2', '3', '4'), fc.boolean()).map(([c, x]) => file(c, x)),
    },
    { weight: 3, arbitrary: fc.constant(folder) },
    { weight: 1, arbitrary: fc.constantFrom('a', 'b').map(link) },
  );
  const edits = fc.array(fc.tuple(paths, fc.option(entries, { nil: null, freq: 3 })), { maxLength: 8 });

  /** Changes a tree as a person does: parents are made, what stands in the way goes. */
  function edit(before: Entries, changes: [string, Entry | null][]): Entries {
    const after = new Map(before);
    for (const [path, entry] of changes) {
      for (const each of [...after.keys()])
        if (each.startsWith(`${path}/`) && entry?.kind !== 'folder') after.delete(each);
      if (!entry) {
        after.delete(path);
        continue;
      }
      for (let parent = parentOf(path); parent !== ''; parent = parentOf(parent))
        if (after.get(parent)?.kind !== 'folder') after.set(parent, folder);
      if (!(entry.kind === 'folder' && after.get(path)?.kind === 'folder')) after.set(path, entry);
    }
    return after;
  }
  const worlds = fc.tuple(edits, edits, edits).map(([first, here, there]) => {
    const base = edit(new Map(), first);
    return { base, local: edit(base, here), remote: edit(base, there) };
  });
  const clone = (world: World): World => ({
    base: new Map(world.base),
    local: new Map(world.local),
    remote: new Map(world.remote),
  });
  /** Contents that a side has changed or added, which must not be lost. */
  const news = (world: World) =>
    (['local', 'remote'] as const).flatMap((side) =>
      [...world[side]].flatMap(([path, entry]) =>
        entry.kind === 'file' && (world.base.get(path) as { hash?: string } | undefined)?.hash !== entry.hash
          ? [entry.hash]
          : [],
      ),
    );
  const contents = (entries_: Entries) =>
    new Set([...entries_.values()].flatMap((entry) => (entry.kind === 'file' ? [entry.hash] : [])));

  it('ends with both the same, and loses nothing new', () => {
    fc.assert(
      fc.property(worlds, (before) => {
        const world = clone(before);
        settle(world);
        expect(plain(world.remote)).toEqual(plain(world.local));
        expect(plain(world.base)).toEqual(plain(world.local));
        const kept = contents(world.local);
        expect(news(before).filter((hash) => !kept.has(hash))).toEqual([]);
        // What neither has touched stays, and what one deleted does not come back by itself.
        for (const [path, entry] of before.base) {
          const untouched =
            sameEntry(before.local.get(path), entry) && sameEntry(before.remote.get(path), entry);
          if (untouched && entry.kind !== 'folder') expect(world.local.get(path)).toEqual(entry);
          const gone = !before.local.has(path) && !before.remote.has(path);
          if (gone && entry.kind === 'file') expect(world.local.has(path)).toBe(false);
        }
      }),
      { numRuns: 3_000 },
    );
  });

  it('the same when actions fail, a round is cut short, or its state is never kept', () => {
    fc.assert(
      fc.property(
        worlds,
        fc.infiniteStream(fc.boolean()),
        fc.boolean(),
        edits,
        (before, luck, keep, later) => {
          const world = clone(before);
          const stateOfOld = world.base;
          round(world, nobody, () => luck.next().value);
          if (!keep) world.base = stateOfOld;
          // Somebody keeps working meanwhile.
          const changed = clone(world);
          changed.local = edit(world.local, later);
          const must = news(changed);
          settle(changed);
          expect(plain(changed.remote)).toEqual(plain(changed.local));
          const kept = contents(changed.local);
          if (keep) expect(must.filter((hash) => !kept.has(hash))).toEqual([]);
        },
      ),
      { numRuns: 3_000 },
    );
  });

  it('does nothing to what is not known', () => {
    fc.assert(
      fc.property(worlds, fc.uniqueArray(paths, { maxLength: 2 }), (before, hidden) => {
        const under = (path: string) => hidden.some((one) => path === one || path.startsWith(`${one}/`));
        const plan = reconcile(before, { unknown: new Set(hidden), conflictName });
        for (const action of plan.actions) expect(under(action.path)).toBe(false);
        for (const [path, entry] of before.base) if (under(path)) expect(plan.base.get(path)).toEqual(entry);
      }),
      { numRuns: 2_000 },
    );
  });
});
