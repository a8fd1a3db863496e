import { createHash } from 'node:crypto';
import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type Duplex, duplexPair } from 'node:stream';
import { findRoot, makeDiskTree } from '@cde/filesync/disk.ts';
import type { Entries } from '@cde/filesync/entries.ts';
import { openRemoteTree } from '@cde/filesync/remote.ts';
import { serveTree } from '@cde/filesync/serve.ts';
import { type Tree, TreeError } from '@cde/filesync/tree.ts';
import { readFrames, writeFrame } from '@cde/filesync/wire.ts';
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { EmptiedError, makeEngine, type SyncEvent } from './engine.ts';
import { makeConflictName } from './names.ts';

/** Two folders on this disk, the second behind the protocol that an agent speaks. */
let folder: string;
let here: string;
let there: string;
let local: Tree;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cde-sync-'));
  here = await findRoot(join(folder, 'here'), true);
  there = await findRoot(join(folder, 'there'), true);
  local = makeDiskTree(here);
});
afterEach(async () => {
  local.close();
  await rm(folder, { recursive: true, force: true });
});

async function connect(): Promise<{ remote: Tree; stream: Duplex }> {
  const [stream, other] = duplexPair();
  void serveTree(other, { home: folder });
  const remote = await openRemoteTree(stream, { root: 'there', create: false });
  onTestFinished(() => remote.close());
  return { remote, stream };
}

function engineOf(more: { base?: Entries; allowEmpty?: boolean; lines?: string[] } = {}) {
  const events: SyncEvent[] = [];
  const heard = new Set<() => void>();
  let kept: Entries = more.base ?? new Map();
  const lines = more.lines ?? [];
  const engine = makeEngine({
    local,
    base: kept,
    save(base) {
      kept = new Map(base);
    },
    rules: async () => ({ lines: ['node_modules', ...lines], git: false }),
    conflictName: makeConflictName('web', () => new Date('2026-11-21T10:45:00Z')),
    allowEmpty: more.allowEmpty ?? false,
    tell(event) {
      events.push(event);
      for (const look of heard) look();
    },
  });
  return {
    engine,
    events,
    lines,
    kept: () => kept,
    /** Waits until a condition holds, looking at it whenever something has been told. */
    until: (holds: () => boolean | Promise<boolean>) =>
      new Promise<void>((resolve) => {
        const look = async () => {
          if (!(await holds())) return;
          heard.delete(look);
          resolve();
        };
        heard.add(look);
        void look();
      }),
  };
}

const put = async (path: string, text: string) => {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text);
};
/** All that a folder holds: names with contents, links with where they lead. */
async function all(root: string, below = ''): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const entry of await readdir(join(root, below), { withFileTypes: true })) {
    const path = below === '' ? entry.name : `${below}/${entry.name}`;
    if (entry.isDirectory()) Object.assign(found, { [`${path}/`]: '' }, await all(root, path));
    else if (entry.isSymbolicLink()) found[path] = `→ ${await readlink(join(root, path))}`;
    else found[path] = await readFile(join(root, path), 'utf8');
  }
  return found;
}
const same = async () => expect(await all(there)).toEqual(await all(here));

describe('two folders', () => {
  it('become the same, and stay so over changes of every kind', async () => {
    await put(join(here, 'src/a.ts'), 'a');
    await put(join(here, 'node_modules/x'), 'mine');
    await symlink('src/a.ts', join(here, 'link'));
    await put(join(there, 'b.sh'), '#!');
    await chmod(join(there, 'b.sh'), 0o755);
    await put(join(there, 'node_modules/x'), 'theirs');
    await put(join(there, 'large'), 'x'.repeat(3_000_000));
    const { engine, kept } = engineOf();
    const { remote } = await connect();
    expect(await engine.once(remote)).toBe(true);
    expect(await all(here)).toEqual({
      'src/': '',
      'src/a.ts': 'a',
      link: '→ src/a.ts',
      'b.sh': '#!',
      large: 'x'.repeat(3_000_000),
      'node_modules/': '',
      'node_modules/x': 'mine',
    });
    expect((await stat(join(here, 'b.sh'))).mode & 0o100).toBe(0o100);
    expect(await readFile(join(there, 'node_modules/x'), 'utf8')).toBe('theirs');
    // With the state of old alone, as after a new start.
    await rm(join(here, 'link'));
    await rm(join(there, 'src'), { recursive: true });
    await put(join(here, 'large'), 'small');
    await chmod(join(there, 'b.sh'), 0o644);
    await put(join(there, 'new/deep/er'), '1');
    const again = engineOf({ base: kept() });
    expect(await again.engine.once((await connect()).remote)).toBe(true);
    await rm(join(there, 'node_modules'), { recursive: true });
    await rm(join(here, 'node_modules'), { recursive: true });
    await same();
    expect(Object.keys(await all(here)).sort()).toEqual([
      'b.sh',
      'large',
      'new/',
      'new/deep/',
      'new/deep/er',
    ]);
    expect((await stat(join(here, 'b.sh'))).mode & 0o111).toBe(0);
  });

  it('give new files and folders the permissions of their source, less the umask', async () => {
    for (const mode of [0o444, 0o600, 0o644, 0o750, 0o755]) {
      await put(join(here, `f${mode.toString(8)}`), 'x');
      await chmod(join(here, `f${mode.toString(8)}`), mode);
    }
    await mkdir(join(here, 'd700'));
    await mkdir(join(there, 'd750'));
    await chmod(join(here, 'd700'), 0o700);
    await chmod(join(there, 'd750'), 0o750);
    expect(await engineOf().engine.once((await connect()).remote)).toBe(true);
    for (const root of [here, there])
      for (const name of [...(await readdir(root))])
        expect([name, ((await stat(join(root, name))).mode & 0o7777).toString(8)]).toEqual([
          name,
          name.slice(1),
        ]);
    expect((await readdir(there)).sort()).toEqual((await readdir(here)).sort());
  });

  it('leave out and name what leads out or is no file, which is no failure', async () => {
    await put(join(here, 'a'), 'a');
    await symlink('/etc/passwd', join(here, 'out'));
    const { engine, events } = engineOf();
    expect(await engine.once((await connect()).remote)).toBe(true);
    expect(await engine.once((await connect()).remote)).toBe(true);
    expect(events.filter(({ event }) => event === 'left-out')).toEqual([
      expect.objectContaining({ path: 'out', code: 'link-leaves' }),
    ]);
    expect(await all(there)).toEqual({ a: 'a' });
  });

  it('name a file whose name is not UTF-8, and never make up another name for it', async () => {
    await put(join(here, 'a'), 'a');
    await writeFile(Buffer.concat([Buffer.from(`${here}/caf`), Buffer.from([0xe9])]), 'x');
    await symlink(Buffer.from([0x61, 0xe9]), join(here, 'link'));
    const { engine, events } = engineOf();
    expect(await engine.once((await connect()).remote)).toBe(false);
    expect(events.filter(({ event }) => event === 'problem')).toEqual([
      expect.objectContaining({ path: 'caf\\xE9', code: 'name' }),
      expect.objectContaining({ path: 'link', code: 'name' }),
    ]);
    expect(await readdir(there)).toEqual(['a']);
  });

  it('keep both versions of a conflict, named, on both sides', async () => {
    await put(join(here, 'd/app.ts'), 'mine');
    await put(join(there, 'd/app.ts'), 'theirs');
    const { engine, events } = engineOf();
    expect(await engine.once((await connect()).remote)).toBe(true);
    const kept = 'd/app.ts.conflict-web-20261121-104500';
    expect(await all(here)).toEqual({ 'd/': '', 'd/app.ts': 'mine', [kept]: 'theirs' });
    await same();
    expect(events).toContainEqual({ event: 'conflict', path: 'd/app.ts', kept });
  });

  it('go on where the other side was cut off in the middle, and lose nothing', async () => {
    for (let index = 0; index < 60; index += 1) {
      await put(join(here, `mine/${index}`), `m${index}`.repeat(2_000));
      await put(join(there, `theirs/${index}`), `t${index}`.repeat(2_000));
    }
    const { engine, events } = engineOf();
    const first = await connect();
    const working = engine.once(first.remote);
    working.catch(() => {});
    // Somewhere among the contents.
    let bytes = 0;
    first.stream.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > 60_000) first.stream.destroy();
    });
    await expect(working).rejects.toMatchObject({ code: 'disconnected' });
    expect(events.some(({ event }) => event === 'settled')).toBe(false);
    expect(await engine.once((await connect()).remote)).toBe(true);
    await same();
    expect(Object.keys(await all(here))).toHaveLength(122);
  });

  it('follow each other: changes, deletions, new rules, and whole folders', async () => {
    const { engine, until, lines } = engineOf();
    const { remote } = await connect();
    const over = new AbortController();
    const following = engine.follow(remote, over.signal);
    await put(join(here, 'a'), '1');
    const has = (root: string, path: string, text: string) => async () =>
      (await readFile(join(root, path), 'utf8').catch(() => null)) === text;
    await until(has(there, 'a', '1'));
    await put(join(there, 'sub/b'), '2');
    await until(has(here, 'sub/b', '2'));
    await put(join(here, 'sub/b'), '3');
    await until(has(there, 'sub/b', '3'));
    await rm(join(there, 'sub'), { recursive: true });
    await until(async () => !(await stat(join(here, 'sub')).catch(() => null)));
    lines.push('a');
    await put(join(here, 'y'), 'y');
    await until(has(there, 'y', 'y'));
    await rm(join(here, 'a'));
    await put(join(here, 'z'), 'z');
    await until(has(there, 'z', 'z'));
    expect(await readFile(join(there, 'a'), 'utf8')).toBe('1');
    over.abort();
    remote.close();
    await following.catch(() => {});
  });

  it('do not follow a side that has lost everything, unless that is allowed', async () => {
    for (const name of ['a', 'b', 'c']) await put(join(here, name), name);
    const first = engineOf();
    await first.engine.once((await connect()).remote);
    for (const name of ['a', 'b', 'c']) await rm(join(there, name));
    const base = first.kept();
    await expect(engineOf({ base }).engine.once((await connect()).remote)).rejects.toThrow(EmptiedError);
    expect(Object.keys(await all(here))).toHaveLength(3);
    await rm(there, { recursive: true });
    await expect(connect()).rejects.toMatchObject({ code: 'root-missing' });
    await mkdir(there);
    expect(await engineOf({ base, allowEmpty: true }).engine.once((await connect()).remote)).toBe(true);
    expect(await all(here)).toEqual({});
  });

  it('leave a folder that still holds what takes no part', async () => {
    await put(join(here, 'other'), 'o');
    await put(join(here, 'd/f'), 'f');
    await put(join(here, 'd/node_modules/x'), 'x');
    const { engine, events } = engineOf();
    await engine.once((await connect()).remote);
    await rm(join(there, 'd'), { recursive: true });
    expect(await engine.once((await connect()).remote)).toBe(true);
    expect(await all(here)).toEqual({ other: 'o', 'd/': '', 'd/node_modules/': '', 'd/node_modules/x': 'x' });
    expect(events).toContainEqual(expect.objectContaining({ event: 'problem', code: 'not-empty' }));
  });
});

describe('a hostile agent', () => {
  const file = (text: string) => ({
    kind: 'file',
    hash: createHash('sha256').update(text).digest('base64url'),
    size: text.length,
    executable: true,
  });

  /** Answers a scan with these entries, and every read with this content. */
  async function hostile(entries: [unknown, unknown][], content = 'evil'): Promise<Tree> {
    const [stream, other] = duplexPair();
    void (async () => {
      for await (const { head } of readFrames(other)) {
        const { id, op } = head;
        if (op === 'scan') await writeFrame(other, { id, part: 'set', entries });
        if (op === 'read') {
          await writeFrame(other, { id, part: 'begin', mode: 0o777 });
          await writeFrame(other, { id, part: 'data' }, Buffer.from(content));
        }
        if (!['begin', 'data', 'end', 'abort'].includes(String(op))) await writeFrame(other, { id, ok: {} });
      }
    })().catch(() => {});
    const tree = await openRemoteTree(stream, { root: 'x', create: false });
    onTestFinished(() => tree.close());
    return tree;
  }

  it('writes nothing outside the folder, and nothing that runs by itself in it', async () => {
    await put(join(folder, 'outside/victim'), 'mine');
    await symlink(join(folder, 'outside'), join(here, 'way'));
    const names = [
      '../outside/victim',
      '../../etc/x',
      '/tmp/cde-hostile',
      'a/../../outside/x',
      'way/victim',
      'way/new',
      '.git/hooks/post-checkout',
      '.GIT/config',
      'sub/.git/config',
      'a\0b',
      '',
      '.',
      '..',
      'no-such-folder/x',
      '.cde-sync-0123456789abcdef.tmp',
      7,
    ];
    const { engine } = engineOf();
    const remote = await hostile([
      ...names.map((name): [unknown, unknown] => [name, file('evil')]),
      ['.git', { kind: 'folder' }],
      ['sub', { kind: 'folder' }],
      ['way', { kind: 'folder' }],
      ['l1', { kind: 'link', target: '/etc/passwd' }],
      ['l2', { kind: 'link', target: '../outside' }],
      ['l3', { kind: 'link', target: 'sub/../../outside' }],
      ['good', file('evil')],
      ['odd', { kind: 'socket' }],
      ['wrong', { ...file('evil'), size: -1 }],
    ]);
    await engine.once(remote);
    expect(await all(here)).toEqual({ 'sub/': '', good: 'evil', way: `→ ${join(folder, 'outside')}` });
    expect(await all(join(folder, 'outside'))).toEqual({ victim: 'mine' });
    await expect(stat('/tmp/cde-hostile')).rejects.toThrow();
  });

  it('cannot exhaust memory or the stack with paths that are none', async () => {
    await put(join(here, 'a'), 'a');
    const [stream, other] = duplexPair();
    void (async () => {
      for await (const { head } of readFrames(other)) {
        const { id, op } = head;
        if (op === 'scan')
          await writeFrame(other, {
            id,
            part: 'unknown',
            unknown: [{ path: 'a/'.repeat(200_000), why: '\x1b]0;x' }, { path: 7 }, {}],
          });
        if (!['begin', 'data', 'end', 'abort'].includes(String(op))) await writeFrame(other, { id, ok: {} });
      }
    })().catch(() => {});
    const remote = await openRemoteTree(stream, { root: 'x', create: false });
    onTestFinished(() => remote.close());
    const { engine, events } = engineOf();
    await engine.once(remote);
    const problem = events.find(({ event }) => event === 'problem');
    expect(problem).toMatchObject({ code: 'name', side: 'remote' });
    expect(JSON.stringify(problem).length).toBeLessThan(10_000);
  });

  it('cannot fill the memory with names', async () => {
    const [stream, other] = duplexPair();
    void (async () => {
      for await (const { head } of readFrames(other)) {
        if (head.op === 'open') await writeFrame(other, { id: head.id, ok: {} });
        // A listing that never ends.
        for (let count = 0; head.op === 'scan'; count += 1)
          await writeFrame(other, { id: head.id, part: 'set', entries: [[`f${count}`, file('x')]] });
      }
    })().catch(() => {});
    const remote = await openRemoteTree(stream, { root: 'x', create: false, maxBytes: 100_000 });
    await expect(engineOf().engine.once(remote)).rejects.toMatchObject({ code: 'too-large' });
  });

  it('cannot pass off another content, or more of it', async () => {
    const { engine } = engineOf();
    expect(await engine.once(await hostile([['f', file('promised')]], 'something else'))).toBe(false);
    expect(await engine.once(await hostile([['f', file('promised')]], 'x'.repeat(900_000)))).toBe(false);
    expect(await all(here)).toEqual({});
  });

  it('that breaks the protocol ends the connection with that reason', async () => {
    for (const bytes of [
      Buffer.from([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]),
      Buffer.from([0, 0, 0, 2, 0, 0, 0, 0, 0x5b, 0x5d]),
      Buffer.from([0, 0, 0, 1, 0, 0, 0, 0, 0x7b]),
    ]) {
      const [stream, other] = duplexPair();
      const opening = openRemoteTree(stream, { root: 'x', create: false });
      other.write(bytes);
      await expect(opening).rejects.toEqual(expect.objectContaining({ code: 'protocol' }));
      expect(stream.destroyed).toBe(true);
    }
  });

  it('and a hostile client: the agent tells it so, and ends', async () => {
    for (const head of [
      { id: 1, op: 'scan', rules: { lines: [] } },
      { id: 1, op: 'constructor' },
      { id: 1, op: 'open', root: 'a\0b' },
    ]) {
      const [stream, other] = duplexPair();
      const served = serveTree(other, { home: folder });
      await writeFrame(stream, head);
      const said: unknown[] = [];
      for await (const frame of readFrames(stream)) said.push(frame.head);
      expect(said).toEqual([expect.objectContaining({ event: 'error', code: 'protocol' })]);
      await served;
    }
    const { remote } = await connect();
    await expect(remote.makeFolder('../x')).rejects.toEqual(expect.any(TreeError));
    await expect(remote.makeLink('x', { kind: 'link', target: '../x' }, null)).rejects.toMatchObject({
      code: 'unsafe',
    });
    await expect(remote.remove('../here', { kind: 'folder' })).rejects.toMatchObject({ code: 'unsafe' });
    expect((await readdir(folder)).sort()).toEqual(['here', 'there']);
  });
});
