import { isAbsolute, join } from 'node:path';
import type { Duplex } from 'node:stream';
import { asTreeError, findRoot, makeDiskTree, type ScanCache } from './disk.ts';
import {
  type Entries,
  type Entry,
  type FileEntry,
  isEntry,
  isMode,
  type LinkEntry,
  sameEntry,
} from './entries.ts';
import type { Rules } from './rules.ts';
import { type Sink, TreeError } from './tree.ts';
import { type Frame, readFrames, writeFrame } from './wire.ts';

/** Entries in one frame of a scan: some 300 KiB. */
const entriesPerFrame = 2_000;
/** Received files that are still being flushed to disk. */
const maxFinishing = 32;
/** Roots whose scan results are cached for returning clients. */
const maxCaches = 4;
const caches = new Map<string, ScanCache>();

type Head = Frame['head'];

/**
 * Serves a `files` stream: one tree on this machine's disk, at the folder that the client names (relative to `home`).
 * Resolves when the stream ends.
 */
export async function serveTree(
  stream: Duplex,
  {
    home,
    onTransfer = () => {},
  }: {
    home: string;
    /** Called when a file's content is sent or received. */
    onTransfer?: () => void;
  },
): Promise<void> {
  stream.on('error', () => {});
  // Many responses may wait for `drain` at the same time.
  stream.setMaxListeners(0);
  let tree: ReturnType<typeof makeDiskTree> | undefined;
  let root = '';
  /** The entries that the client knows. */
  let sentEntries: Entries = new Map();
  const frames = readFrames(stream);
  const send = (head: Head, body?: Buffer) => writeFrame(stream, head, body);
  const theTree = () => {
    if (!tree) throw new TreeError('protocol', 'the tree is not open');
    return tree;
  };

  /**
   * Receives a write's content, and responds once it is on disk. The next request does not wait for that, since flushing
   * many files takes hardly longer than one.
   */
  async function takeWrite(id: unknown, { path, entry, expected }: Head): Promise<void> {
    const content = makeContent();
    const work = async () => {
      await theTree().write(
        text(path),
        entryOf(path, entry, 'file'),
        expectedOf(path, expected),
        content.into,
      );
      return {};
    };
    const answered = answer(id, work);
    answered.catch(() => {});
    // A refusal may come before all content has arrived.
    await Promise.race([content.taken, answered]);
    await content.skip();
    finishing.add(answered);
    void answered.finally(() => finishing.delete(answered)).catch(() => {});
    if (finishing.size >= maxFinishing) await Promise.race(finishing);
  }
  const finishing = new Set<Promise<void>>();

  async function answer(id: unknown, work: () => Promise<Head>): Promise<void> {
    try {
      const ok = await work();
      await send({ id, ok });
    } catch (thrown) {
      const error = asTreeError(thrown);
      if (error.code === 'protocol' || error.code === 'disconnected') throw error;
      await send({ id, error: { code: error.code, message: error.message } });
    }
  }

  const operations: Record<string, (id: unknown, head: Head) => Promise<Head>> = {
    async open(_, { root: path, create }) {
      if (tree || typeof path !== 'string' || path.includes('\0'))
        throw new TreeError('protocol', 'open must be sent once, with a path');
      const expanded = path.replace(/^~(?=\/|$)/, '.');
      root = await findRoot(isAbsolute(expanded) ? expanded : join(home, expanded), create === true);
      tree = makeDiskTree(root, caches.get(root));
      tree.watch(() => void send({ event: 'changed' }).catch(() => {}));
      return { root };
    },
    async scan(id, { rules }) {
      const { entries, skipped: unknown } = await theTree().scan(asRules(rules));
      const set = [...entries].filter(([path, entry]) => !isShown(sentEntries.get(path), entry));
      const gone = [...sentEntries.keys()].filter((path) => !entries.has(path));
      sentEntries = entries;
      for (let at = 0; at < set.length; at += entriesPerFrame)
        await send({ id, part: 'set', entries: set.slice(at, at + entriesPerFrame) });
      for (let at = 0; at < gone.length; at += entriesPerFrame)
        await send({ id, part: 'gone', paths: gone.slice(at, at + entriesPerFrame) });
      for (let at = 0; at < unknown.length; at += entriesPerFrame)
        await send({ id, part: 'unknown', unknown: unknown.slice(at, at + entriesPerFrame) });
      return { watched: theTree().watched };
    },
    async read(id, { path, entry }) {
      await theTree().read(text(path), entryOf(path, entry, 'file'), {
        begin: (mode) => send({ id, part: 'begin', mode }),
        data(chunk) {
          onTransfer();
          return send({ id, part: 'data' }, chunk);
        },
      });
      return {};
    },
    async setExecutable(_, { path, executable, expected }) {
      await theTree().setExecutable(text(path), executable === true, entryOf(path, expected, 'file'));
      return {};
    },
    async makeFolder(_, { path, mode }) {
      await theTree().makeFolder(text(path), isMode(mode) ? mode : undefined);
      return {};
    },
    async makeLink(_, { path, entry, expected }) {
      await theTree().makeLink(text(path), entryOf(path, entry, 'link'), expectedOf(path, expected));
      return {};
    },
    async remove(_, { path, expected }) {
      await theTree().remove(text(path), entryOf(path, expected));
      return {};
    },
    async rename(_, { path, to, expected }) {
      await theTree().rename(text(path), text(to), entryOf(path, expected));
      return {};
    },
  };

  /** Reads the frames of one file's content. */
  function makeContent() {
    let over = false;
    let taken: () => void;
    const whenTaken = new Promise<void>((resolve) => {
      taken = resolve;
    });
    async function next(): Promise<Frame> {
      const { done, value } = await frames.next();
      if (done) throw new TreeError('disconnected', 'the stream ended');
      over = value.head.op === 'end' || value.head.op === 'abort';
      if (over) taken();
      return value;
    }
    return {
      taken: whenTaken,
      async into(sink: Sink): Promise<void> {
        for (let frame = await next(); ; frame = await next()) {
          const { op, mode } = frame.head;
          if (op === 'begin') await sink.begin(Number(mode) & 0o777);
          else if (op === 'data') {
            onTransfer();
            await sink.data(frame.body);
          } else if (op === 'end') return;
          else if (op === 'abort') throw new TreeError('changed', 'the transfer was aborted');
          else throw new TreeError('protocol', 'unexpected frame within a transfer');
        }
      },
      async skip(): Promise<void> {
        while (!over) await next();
      },
    };
  }

  try {
    for (;;) {
      const { done, value } = await frames.next();
      if (done) break;
      const { id, op } = value.head;
      const operation = Object.hasOwn(operations, String(op)) ? operations[String(op)] : undefined;
      if (op === 'write') await takeWrite(id, value.head);
      else if (operation) await answer(id, () => operation(id, value.head));
      else throw new TreeError('protocol', `unknown operation: ${String(op).slice(0, 40)}`);
    }
  } catch (thrown) {
    const error = asTreeError(thrown);
    if (error.code === 'protocol')
      await send({ event: 'error', code: error.code, message: error.message }).catch(() => {});
  } finally {
    if (tree) {
      caches.delete(root);
      caches.set(root, tree.memory());
      for (const old of caches.keys()) {
        if (caches.size <= maxCaches) break;
        caches.delete(old);
      }
      tree.close();
    }
    // Flushes the last response.
    stream.end(() => void frames.return());
  }
}

const text = (value: unknown): string => {
  if (typeof value !== 'string') throw new TreeError('protocol', 'a path must be a string');
  return value;
};

const isShown = (sentEntries: Entry | undefined, entry: Entry): boolean =>
  sameEntry(sentEntries, entry) &&
  (sentEntries?.kind !== 'folder' || entry.kind !== 'folder' || sentEntries.mode === entry.mode);

function entryOf(path: unknown, value: unknown): Entry;
function entryOf(path: unknown, value: unknown, kind: 'file'): FileEntry;
function entryOf(path: unknown, value: unknown, kind: 'link'): LinkEntry;
function entryOf(path: unknown, value: unknown, kind?: Entry['kind']): Entry {
  if (!isEntry(text(path), value) || (kind && value.kind !== kind))
    throw new TreeError('unsafe', `${JSON.stringify(path)}: not a valid entry for this path`);
  return value;
}

const expectedOf = (path: unknown, value: unknown): Entry | null =>
  value === null ? null : entryOf(path, value);

function asRules(value: unknown): Rules {
  const { lines, git } = (value ?? {}) as Record<string, unknown>;
  if (!Array.isArray(lines) || !lines.every((line) => typeof line === 'string'))
    throw new TreeError('protocol', 'rules must be a list of strings');
  return { lines, git: git === true };
}
