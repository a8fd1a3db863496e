import type { Entries } from '@cde/filesync/entries.ts';
import { isSafePath, sameEntry } from '@cde/filesync/entries.ts';
import type { Rules } from '@cde/filesync/rules.ts';
import { type Scan, type SkippedPath, type Tree, TreeError } from '@cde/filesync/tree.ts';
import { makePool } from '../copy/pool.ts';
import { type Action, applyToBase, otherSide, reconcile, type SideName } from './reconcile.ts';
import { findHeldRuleFiles, type HeldRuleFile } from './rule-files.ts';

/** What happens, as it happens. */
export type SyncEvent =
  | { event: 'change'; action: Action }
  /** Both sides changed this path: the remote version is at `kept` on both sides. */
  | { event: 'conflict'; path: string; kept: string }
  /** The workspace changed a rule file, which is not copied. Reported once for each version. */
  | ({ event: 'rules' } & HeldRuleFile)
  /** A path that cannot be synced. Reported once for each reason. */
  | { event: 'problem'; side: SideName; path: string; code: string; message: string }
  /** A path that is left out by design, which is not a problem. Reported once. */
  | { event: 'left-out'; side: SideName; path: string; code: string; message: string }
  /** Both sides are the same, except for `problems`. */
  | { event: 'settled'; files: number; problems: number };

export interface EngineOptions {
  local: Tree;
  /** The state of the last run; read again at the beginning of `follow`. */
  base: Entries;
  save(base: Entries): void;
  /** What to leave out; requested in each round. */
  rules(): Promise<Rules>;
  /** Files that decide what leaves this machine: taken to the remote side, never from it. */
  isRuleFile?: ((path: string) => boolean) | undefined;
  conflictName(path: string, taken: (path: string) => boolean): string;
  /** Continue although one side has lost everything. */
  allowEmpty: boolean;
  tell(event: SyncEvent): void;
}

/** One side is suddenly empty: a disk that is not mounted, or a new home. */
export class EmptiedError extends Error {
  readonly side: SideName;
  constructor(side: SideName) {
    super(`the ${side} side is empty`);
    this.side = side;
  }
}

/** Files transferred concurrently: each small one costs a round trip. */
const maxConcurrentContents = 32;
/** Concurrent requests to the remote side that are independent of each other. */
const maxConcurrentRequests = 64;
/** After this many rounds without a pause, a program writes as fast as we copy: wait before the next one. */
const maxRounds = 20;
/** A watch can miss changes (a network file system, a full queue), so everything is scanned again. */
const rescanMs = 30_000;
/** More often if not everything is watched. */
const unwatchedRescanMs = 5_000;
/** The share of the time that scans may take. */
const scanShare = 20;
/** Between two rounds. */
const minPauseMs = 100;
const maxPauseMs = 5_000;
const retryMs = 2_000;
const maxRetryMs = 60_000;

/** Ends a connection and every transfer on it. */
const fatal = new Set(['disconnected', 'protocol', 'root-missing', 'too-large']);

/** Keeps two trees the same. `remote` may be a different one after each interruption. */
export function makeEngine(options: EngineOptions) {
  const { local, tell } = options;
  let { base } = options;
  const dirty = { local: true, remote: true };
  const scans: Record<SideName, Scan | null> = { local: null, remote: null };
  let lastRules = '';
  let wake = () => {};
  let scanMs = 0;
  const told = new Set<string>();
  /** Those of the current round. */
  const seen = new Set<string>();
  let problems = 0;
  /** A file could not be read because it is being written. */
  let restless = false;
  local.watch(() => {
    dirty.local = true;
    wake();
  });

  function problem(side: SideName, path: string, code: string, message: string): void {
    problems += 1;
    tellOnce(`${side} ${path} ${code}`, () => tell({ event: 'problem', side, path, code, message }));
  }

  /** Reports a problem once, until it is gone and occurs again. */
  function tellOnce(key: string, say: () => void): void {
    seen.add(key);
    if (told.has(key)) return;
    told.add(key);
    say();
  }

  async function look(remote: Tree): Promise<{ rules: Rules; unknown: Set<string> }> {
    const rules = await options.rules();
    const text = JSON.stringify(rules);
    // Both sides use the same rules. Otherwise what one of them leaves out would look deleted.
    if (text !== lastRules) dirty.local = dirty.remote = true;
    lastRules = text;
    const since = performance.now();
    const scan = async (side: SideName, tree: Tree) => {
      if (!dirty[side] && scans[side]) return;
      dirty[side] = false;
      scans[side] = null;
      scans[side] = await tree.scan(rules);
    };
    await Promise.all([scan('local', local), scan('remote', remote)]);
    scanMs = performance.now() - since;
    const unknown = new Set<string>();
    problems = 0;
    restless = false;
    seen.clear();
    for (const side of ['local', 'remote'] as const)
      for (const { path, why } of scans[side]!.skipped) {
        // The other side may make up any text; only what can be a path names something that is left alone.
        if (path === '' || isSafePath(path)) unknown.add(path);
        // A program is writing to it, and will stop at some point.
        if (why === 'changing') restless = true;
        else if (leftOut.has(why))
          tellOnce(`${side} ${path} ${why}`, () =>
            tell({ event: 'left-out', side, path, code: why, message: skipReasons[why] }),
          );
        else problem(side, path, why, skipReasons[why]);
      }
    return { rules, unknown };
  }

  /** What would be done now. Changes nothing. */
  async function plan(remote: Tree): Promise<{ actions: Action[]; base: Entries }> {
    const { unknown } = await look(remote);
    const trees = { base, local: scans.local!.entries, remote: scans.remote!.entries };
    for (const side of ['local', 'remote'] as const) {
      const isEmptied = trees[side].size === 0 && base.size > 1 && trees[otherSide(side)].size > 0;
      if (isEmptied && !options.allowEmpty && !unknown.has('')) throw new EmptiedError(side);
    }
    if (options.isRuleFile)
      for (const held of findHeldRuleFiles(trees, options.isRuleFile)) {
        unknown.add(held.path);
        const version = trees.remote.get(held.path);
        tellOnce(`rules ${held.path} ${JSON.stringify(version)}`, () => tell({ event: 'rules', ...held }));
      }
    return reconcile(trees, { unknown, conflictName: options.conflictName });
  }

  /** Looks, and does what is to be done; says how many actions there were and how many came about. */
  async function round(remote: Tree): Promise<{ planned: number; done: number }> {
    const made = await plan(remote);
    const before = base;
    base = made.base;
    let done = 0;
    const perform = async (action: Action) => {
      try {
        await performAction(action, { local, remote });
      } catch (error) {
        if (!(error instanceof TreeError) || fatal.has(error.code)) throw error;
        dirty.local = dirty.remote = true;
        // It changed after the scan; the next scan shows how.
        if (error.code === 'not-empty' && action.do === 'remove') {
          problem(
            action.side,
            action.path,
            error.code,
            'the folder stays, with what takes no part or could not be removed',
          );
          // Treated as new, so that both sides get it.
          base.delete(action.path);
        } else if (error.code !== 'changed') problem(action.side, action.path, error.code, error.message);
        return;
      }
      done += 1;
      dirty[action.side] = true;
      applyToBase(base, action);
      if (action.do === 'rename') tell({ event: 'conflict', path: action.path, kept: action.to });
      else tell({ event: 'change', action });
    };
    try {
      await performAll(made.actions, perform);
    } finally {
      if (done > 0 || !sameEntries(before, base)) options.save(base);
    }
    return { planned: made.actions.length, done };
  }

  /** Repeats rounds until both sides are the same (true), or nothing more can be done. */
  async function settle(remote: Tree): Promise<boolean> {
    let idle = 0;
    for (let rounds = 0; rounds < maxRounds; rounds += 1) {
      const { planned, done } = await round(remote);
      if (planned === 0) {
        // A problem that is gone and occurs again is reported again.
        for (const key of told) if (!seen.has(key)) told.delete(key);
        tell({ event: 'settled', files: countFiles(base), problems });
        return problems === 0 && !restless;
      }
      // Once more for what changed meanwhile.
      idle = done === 0 ? idle + 1 : 0;
      if (idle > 1) break;
    }
    return false;
  }

  return {
    plan,
    /** Makes both sides the same once; true if that succeeded without problems. */
    async once(remote: Tree): Promise<boolean> {
      dirty.remote = true;
      return settle(remote);
    },
    /** Keeps them the same until `signal`; rejects if the connection is lost. */
    async follow(remote: Tree, signal: AbortSignal): Promise<void> {
      dirty.local = dirty.remote = true;
      scans.remote = null;
      let waiting = retryMs;
      remote.watch(() => {
        dirty.remote = true;
        wake();
      });
      while (!signal.aborted) {
        const settled = await settle(remote);
        waiting = settled ? retryMs : Math.min(waiting * 2, maxRetryMs);
        const watched = local.watched && remote.watched;
        const again = Math.max(watched ? rescanMs : unwatchedRescanMs, scanMs * scanShare);
        // A file that is written all the time must not keep two machines busy.
        await pause(Math.max(minPauseMs, Math.min(scanMs * 2, maxPauseMs)), signal);
        if (settled && (dirty.local || dirty.remote)) continue;
        const woken = await pause(settled ? again : Math.min(waiting, again), signal, (end) => {
          wake = end;
        });
        if (!woken) dirty.local = dirty.remote = true;
      }
    },
  };
}

/** Left out by design, as docs/files.md says: named once, and no reason for `--once` to fail. */
const leftOut: ReadonlySet<SkippedPath['why']> = new Set(['not-regular', 'link-leaves']);

const skipReasons: Record<SkippedPath['why'], string> = {
  unreadable: 'it cannot be read',
  'not-regular': 'it is neither a file nor a folder nor a link',
  'link-leaves': 'the link leads out of the folder that is kept in step',
  name: 'its name, or what the link leads to, is not UTF-8, too long, or not possible on both systems',
  changing: 'it is being written',
};

/** Waits; true if the callback of `listen` ended it early. */
function pause(
  ms: number,
  signal: AbortSignal,
  listen: (end: () => void) => void = () => {},
): Promise<boolean> {
  return new Promise((resolve) => {
    const end = (woken: boolean) => {
      clearTimeout(timer);
      signal.removeEventListener('abort', abort);
      listen(() => {});
      resolve(woken);
    };
    const abort = () => end(true);
    const timer = setTimeout(() => end(false), ms);
    signal.addEventListener('abort', abort, { once: true });
    listen(() => end(true));
    if (signal.aborted) abort();
  });
}

/** One phase after the other; within a phase, both sides concurrently. */
async function performAll(actions: Action[], perform: (action: Action) => Promise<void>): Promise<void> {
  for (const phase of [['rename'], ['remove'], ['folder'], ['mode'], ['copy', 'link']]) {
    const mine = actions.filter((action) => phase.includes(action.do));
    if (phase.includes('copy')) await forEach(mine, maxConcurrentContents, perform);
    else {
      const of = (side: SideName) => mine.filter((action) => action.side === side);
      // The agent processes requests in order, so that many can be on their way at once.
      await Promise.all([
        forEach(of('local'), 1, perform),
        forEach(of('remote'), maxConcurrentRequests, perform),
      ]);
    }
  }
}

async function forEach<T>(
  items: T[],
  maxConcurrent: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const pool = makePool(maxConcurrent);
  for (const item of items) await pool.start(() => work(item));
  await pool.idle();
}

function performAction(action: Action, trees: Record<SideName, Tree>): Promise<void> {
  const tree = trees[action.side];
  const { path } = action;
  switch (action.do) {
    case 'rename':
      return tree.rename(path, action.to, action.entry);
    case 'remove':
      return tree.remove(path, action.entry);
    case 'folder':
      return tree.makeFolder(path, action.mode);
    case 'link':
      return tree.makeLink(path, action.entry, action.replaces);
    case 'mode':
      return tree.setExecutable(path, action.entry.executable, action.replaces);
    case 'copy': {
      const from = trees[otherSide(action.side)];
      return tree.write(path, action.entry, action.replaces, (sink) => from.read(path, action.source, sink));
    }
  }
}

function sameEntries(one: Entries, other: Entries): boolean {
  if (one.size !== other.size) return false;
  for (const [path, entry] of one) if (!sameEntry(entry, other.get(path))) return false;
  return true;
}

function countFiles(entries: Entries): number {
  let count = 0;
  for (const { kind } of entries.values()) if (kind !== 'folder') count += 1;
  return count;
}
