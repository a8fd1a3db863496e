import type { Duplex } from 'node:stream';
import { type Entries, isEntry, isSafePath, parentOf } from './entries.ts';
import { makeIgnored, type Rules } from './rules.ts';
import { type Sink, type SkippedPath, type Tree, TreeError, type TreeErrorCode } from './tree.ts';
import { disconnected, type Frame, readFrames, writeFrame } from './wire.ts';

type Head = Frame['head'];

/** A malicious agent could send entries without end. */
const maxEntries = 500_000;
/** Size of a listing of 500,000 files with long paths, which takes a few hundred MiB of memory. */
const maxScanBytes = 128 * 1024 * 1024;
/** Invalid paths are only displayed. */
const maxShownPath = 8192;

interface PendingRequest {
  resolve(ok: Head): void;
  reject(error: TreeError): void;
  /** Must not reject. While it waits, all other responses wait. */
  part?: ((head: Head, body: Buffer, headBytes: number) => Promise<void> | void) | undefined;
}

/**
 * The tree at the other end of a `files` stream. The agent is not trusted: paths that would leave the root, and those
 * that the rules ignore, are dropped. Rejects with `root-missing` and similar codes.
 */
export async function openRemoteTree(
  stream: Duplex,
  { root, create, maxBytes = maxScanBytes }: { root: string; create: boolean; maxBytes?: number },
): Promise<Tree & { root: string }> {
  const pending = new Map<number, PendingRequest>();
  let next = 0;
  let over: TreeError | null = null;
  let changed = () => {};
  let watched = true;
  /** Requests are sent one after another, because nothing may come between a write and its content. */
  let lastSend: Promise<unknown> = Promise.resolve();
  let entries: Entries = new Map();

  stream.on('error', () => {});
  stream.setMaxListeners(0);
  const finish = (error: TreeError) => {
    over ??= error;
    for (const { reject } of pending.values()) reject(over);
    pending.clear();
    // A lost connection counts as a change.
    changed();
    stream.destroy();
  };
  (async () => {
    for await (const { head, body, headBytes } of readFrames(stream)) {
      const { id, event, error, ok } = head;
      if (event === 'changed') changed();
      if (event === 'error') throw new TreeError('protocol', String(head.message));
      const one = pending.get(Number(id));
      if (!one) continue;
      if (head.part !== undefined) {
        await one.part?.(head, body, headBytes);
        continue;
      }
      pending.delete(Number(id));
      if (error) one.reject(errorOf(error));
      else one.resolve((ok ?? {}) as Head);
    }
    throw disconnected();
  })().catch((error) => finish(error instanceof TreeError ? error : disconnected(error)));

  function request(
    op: string,
    fields: Head,
    { part, content }: Pick<PendingRequest, 'part'> & { content?: (sink: Sink) => Promise<void> } = {},
  ): Promise<Head> {
    return new Promise<Head>((resolve, reject) => {
      const send = async () => {
        if (over) throw over;
        const id = ++next;
        pending.set(id, { resolve, reject, part });
        await writeFrame(stream, { id, op, ...fields });
        if (content) await sendContent(content);
      };
      const sent = lastSend.then(send);
      lastSend = sent.catch(() => {});
      sent.catch(reject);
    });
  }

  async function sendContent(fill: (sink: Sink) => Promise<void>): Promise<void> {
    try {
      await fill({
        begin: (mode) => writeFrame(stream, { op: 'begin', mode }),
        data: (chunk) => writeFrame(stream, { op: 'data' }, chunk),
      });
    } catch (error) {
      await writeFrame(stream, { op: 'abort' });
      throw error;
    }
    await writeFrame(stream, { op: 'end' });
  }

  const { root: real } = await request('open', { root, create }).catch((error) => {
    stream.destroy();
    throw error;
  });

  return {
    root: String(real),
    async scan(rules) {
      const set: [unknown, unknown][] = [];
      const gone: unknown[] = [];
      const unknown: SkippedPath[] = [];
      let bytes = 0;
      const reply = await request(
        'scan',
        { rules: { ...rules } },
        {
          part(head, _, headBytes) {
            bytes += headBytes;
            if (head.part === 'set' && Array.isArray(head.entries))
              set.push(...(head.entries as [unknown, unknown][]));
            if (head.part === 'gone' && Array.isArray(head.paths)) gone.push(...head.paths);
            if (head.part === 'unknown' && Array.isArray(head.unknown))
              unknown.push(...(head.unknown as SkippedPath[]));
            const count = Math.max(set.length, gone.length, unknown.length);
            if (count > maxEntries || bytes > maxBytes) finish(tooLarge());
          },
        },
      );
      watched = reply.watched !== false;
      for (const path of gone) entries.delete(String(path));
      for (const [path, entry] of set) {
        if (!isSafePath(path)) continue;
        // Treat invalid entries like unreadable ones: neither synchronized nor removed.
        if (isEntry(path, entry)) entries.set(path, entry);
        else unknown.push({ path, why: 'name' });
      }
      // Scans are incremental.
      if (entries.size > maxEntries) finish(tooLarge());
      if (over) throw over;
      const clean = validated(entries, rules);
      entries = clean.entries;
      // An empty path is the root, which was readable.
      const safeUnknown = unknown.flatMap(({ path, why }) =>
        typeof path === 'string' && path !== ''
          ? [{ path: path.slice(0, maxShownPath), why: reasons.has(why) ? why : ('name' as const) }]
          : [],
      );
      return { entries: new Map(entries), skipped: [...safeUnknown, ...clean.unknown] };
    },
    async read(path, entry, sink) {
      let failed: unknown;
      let begun = false;
      await request(
        'read',
        { path, entry },
        {
          async part(head, body) {
            if (failed) return;
            try {
              if (head.part === 'begin' && !begun) {
                begun = true;
                await sink.begin(Number(head.mode) & 0o777);
              } else if (head.part === 'data' && begun) await sink.data(body);
              else throw new TreeError('protocol', 'data without a beginning');
            } catch (error) {
              failed = error;
            }
          },
        },
      );
      if (failed) throw failed;
      if (!begun) throw new TreeError('protocol', 'data without a beginning');
    },
    async write(path, entry, expected, fill) {
      await request('write', { path, entry, expected }, { content: fill });
    },
    setExecutable: async (path, executable, expected) =>
      void (await request('setExecutable', { path, executable, expected })),
    makeFolder: async (path, mode) => void (await request('makeFolder', { path, mode })),
    makeLink: async (path, entry, expected) => void (await request('makeLink', { path, entry, expected })),
    remove: async (path, expected) => void (await request('remove', { path, expected })),
    rename: async (path, to, expected) => void (await request('rename', { path, to, expected })),
    watch(tell) {
      changed = tell;
    },
    get watched() {
      return watched;
    },
    close() {
      changed = () => {};
      finish(disconnected());
    },
  };
}

/** Keeps only entries whose parent is a folder of the tree, and that the rules do not ignore. */
function validated(entries: Entries, rules: Rules): { entries: Entries; unknown: SkippedPath[] } {
  const ignored = makeIgnored(rules);
  const good: Entries = new Map();
  const unknown: SkippedPath[] = [];
  for (const [path, entry] of [...entries].sort(([one], [other]) => (one < other ? -1 : 1))) {
    const parent = parentOf(path);
    if (ignored(path, entry.kind === 'folder')) continue;
    if (parent !== '' && good.get(parent)?.kind !== 'folder') unknown.push({ path, why: 'name' });
    else good.set(path, entry);
  }
  return { entries: good, unknown };
}

const tooLarge = () => new TreeError('too-large', 'the workspace lists more files than allowed');

const reasons: ReadonlySet<unknown> = new Set<SkippedPath['why']>([
  'unreadable',
  'not-regular',
  'link-leaves',
  'name',
  'changing',
]);

const codes: ReadonlySet<string> = new Set<TreeErrorCode>([
  'changed',
  'not-empty',
  'unsafe',
  'unreadable',
  'no-space',
  'failed',
  'too-large',
  'root-missing',
  'root-not-folder',
]);

function errorOf(value: unknown): TreeError {
  const { code, message } = (value ?? {}) as Record<string, unknown>;
  const known = codes.has(String(code)) ? (code as TreeErrorCode) : 'failed';
  return new TreeError(known, String(message ?? 'refused').slice(0, 500));
}
