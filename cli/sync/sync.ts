import { lstat, readFile } from 'node:fs/promises';
import { join, posix, resolve } from 'node:path';
import { findRoot, makeDiskTree } from '@cde/tunnel/files/disk.ts';
import { openRemoteTree } from '@cde/tunnel/files/remote.ts';
import type { Rules } from '@cde/tunnel/files/rules.ts';
import { type Tree, TreeError } from '@cde/tunnel/files/tree.ts';
import type { Context } from '../context.ts';
import { parseOperand } from '../copy/operands.ts';
import { getWorkspace } from '../endpoints.ts';
import { exitCodes } from '../exit-codes.ts';
import { Failure, toFailure, usage } from '../failure.ts';
import { keepSession } from '../ssh/sessions.ts';
import { pathRef } from '../workspaces/reference.ts';
import { EmptiedError, makeEngine } from './engine.ts';
import { list } from './list.ts';
import { defaultRules, makeConflictName } from './names.ts';
import { openState, type Pair, type Status, takePair } from './state.ts';
import { makeTeller } from './tell.ts';

export interface SyncInput {
  folders: string[];
  once: boolean;
  dryRun: boolean;
  list: boolean;
  ignore: string[];
  gitignore: boolean;
  git: boolean;
  allowEmpty: boolean;
  /** Begins as if the two had never been in step. */
  forget: boolean;
  start: boolean;
  path: string | undefined;
}

export async function sync(context: Context, input: SyncInput): Promise<number | undefined> {
  if (input.list) return list(context);
  const { here, workspace, remote } = readFolders(input.folders);
  const client = await context.client();
  const { id: workspaceId } = await client.call(getWorkspace, { params: { workspace: pathRef(workspace) } });
  const pairOf = (local: string): Pair => ({
    server: context.server().url,
    workspaceId,
    workspace,
    remote,
    local,
  });
  const root = await openLocalRoot(context, here, pairOf, input);
  const pair = pairOf(root ?? resolve(here));
  const state = openState(context.env, pair);
  const status: Status = { pid: process.pid, state: 'connecting', files: 0, problems: 0 };
  const taken = input.dryRun ? null : await takePair(context.env, pair, () => status);
  const local: Tree = root === null ? emptyTree : makeDiskTree(root);
  const sessions = keepSession(context, workspace, input.start && !input.dryRun, { path: input.path });
  let remoteTree: Tree | null = null;
  context.signal.addEventListener('abort', () => remoteTree?.close(), { once: true });
  const teller = makeTeller(context, pair, status);
  try {
    const base = input.forget ? new Map() : state.read();
    const engine = makeEngine({
      local,
      base,
      save: (now) => state.save(now, new Date()),
      rules: () => readRules(root ?? here, input),
      conflictName: makeConflictName(workspace, () => new Date()),
      allowEmpty: input.allowEmpty,
      tell: teller.tell,
    });
    for (let first = true; ; first = false) {
      status.state = 'connecting';
      const create = !input.dryRun && (base.size === 0 || input.allowEmpty);
      const tree = await openRemote(sessions, remote, create && first).catch((error) => {
        if (input.dryRun && error instanceof TreeError && error.code === 'root-missing' && base.size === 0)
          return emptyTree;
        throw readable(error, pair);
      });
      remoteTree = tree;
      if (first) teller.begin(input);
      else teller.again();
      status.state = 'syncing';
      if (input.dryRun) {
        teller.plan((await engine.plan(tree)).actions);
        return undefined;
      }
      const working = input.once ? engine.once(tree) : engine.follow(tree, context.signal);
      try {
        const settled = await Promise.race([working, sessions.ended]);
        context.signal.throwIfAborted();
        if (settled === false) throw incomplete(status);
        if (input.once) return undefined;
      } catch (error) {
        context.signal.throwIfAborted();
        const lost = error instanceof TreeError && error.code === 'disconnected';
        if (!lost || input.once) throw readable(error, pair);
        teller.lost();
      } finally {
        tree.close();
        // What it was doing it gives up, and leaves no halves.
        await working.catch(() => {});
      }
    }
  } catch (error) {
    throw readable(error, pair);
  } finally {
    teller.end();
    local.close();
    sessions.close();
    taken?.release();
  }
}

/** One word is a folder here, the other one in a workspace. */
function readFolders(words: string[]): { here: string; workspace: string; remote: string } {
  const operands = words.map(parseOperand);
  const there = operands.find(({ workspace }) => workspace !== null);
  const here = operands.find(({ workspace }) => workspace === null);
  if (words.length !== 2 || !there?.workspace || !here)
    throw usage(
      'A sync needs a folder of this machine and one of a workspace.',
      'Write cde sync FOLDER WORKSPACE:FOLDER, as in: cde sync ./frontend web:project/frontend',
    );
  const remote = posix
    .normalize(there.path || '.')
    .replace(/^~\/?/, '')
    .replace(/(?<=.)\/+$/, '');
  if (remote === '' || remote === '.' || remote === '/')
    throw usage(
      'The whole home, or disk, of a workspace cannot be kept in step: it holds what belongs to that machine.',
      `Name a folder in it: ${there.workspace}:project`,
    );
  if (remote.split('/').includes('..')) throw usage(`${there.path} leads out of the home.`);
  return { here: here.path, workspace: there.workspace, remote };
}

/** The local folder, made where it is missing for the first time; null: a dry run, and there is none. */
async function openLocalRoot(
  context: Context,
  here: string,
  pairOf: (local: string) => Pair,
  input: SyncInput,
): Promise<string | null> {
  const path = resolve(here);
  try {
    return await findRoot(path, false);
  } catch (error) {
    if (!(error instanceof TreeError) || error.code !== 'root-missing') throw readable(error, pairOf(path));
    const pair = pairOf(path);
    if (openState(context.env, pair).read().size > 0 && !input.allowEmpty && !input.forget)
      throw emptied(`${path} is gone`, pair);
    return input.dryRun ? null : findRoot(path, true);
  }
}

async function openRemote(
  sessions: ReturnType<typeof keepSession>,
  root: string,
  create: boolean,
): Promise<Tree> {
  const open = async () => {
    const session = await sessions.get();
    const stream = await session.open({ kind: 'files' });
    return openRemoteTree(stream, { root, create });
  };
  return Promise.race([open(), sessions.ended]);
}

/** Read anew at each round: a rule that is added counts at once. */
async function readRules(root: string, input: SyncInput): Promise<Rules> {
  return {
    lines: [
      ...defaultRules,
      ...(input.gitignore ? await readLines(join(root, '.gitignore')) : []),
      ...(await readLines(join(root, '.cdeignore'))),
      ...input.ignore,
    ],
    git: input.git,
  };
}

const mostRulesBytes = 256 * 1024;

async function readLines(file: string): Promise<string[]> {
  try {
    const stats = await lstat(file);
    // A link could have been put there by the other side.
    if (!stats.isFile()) throw new Error('it is no plain file');
    if (stats.size > mostRulesBytes) throw new Error(`it has more than ${mostRulesBytes / 1024} KiB`);
    return (await readFile(file, 'utf8')).split(/\r?\n/);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    // Without its rules what was left out, a key say, would be copied.
    throw new TreeError(
      'failed',
      `${file} says what is left out and cannot be read: ${(error as Error).message}`,
    );
  }
}

/** Nothing at all: the local side of a dry run into a folder that is not there yet. */
const emptyTree: Tree = {
  scan: async () => ({ entries: new Map(), unknown: [] }),
  read: refuse,
  write: refuse,
  setExecutable: refuse,
  makeFolder: refuse,
  makeLink: refuse,
  remove: refuse,
  rename: refuse,
  watch() {},
  watched: true,
  close() {},
};

function refuse(): Promise<never> {
  return Promise.reject(new TreeError('failed', 'a dry run changes nothing'));
}

function readable(error: unknown, pair: Pair): unknown {
  const there = `${pair.workspace}:${pair.remote}`;
  if (error instanceof EmptiedError)
    return emptied(`${error.side === 'local' ? pair.local : there} is empty all of a sudden`, pair);
  if (toFailure(error).code === 'target-invalid')
    return new Failure('agent-too-old', `The agent of ${pair.workspace} cannot keep folders in step yet.`, {
      exitCode: exitCodes.conflict,
      detail: 'It is of an older release than this cde.',
      hint: `Start it anew: cde restart ${pair.workspace}`,
      cause: error,
    });
  if (!(error instanceof TreeError)) return error;
  if (error.code === 'root-missing') return emptied(error.message, pair);
  return new Failure('sync-failed', 'The folders cannot be kept in step.', {
    exitCode: error.code === 'disconnected' ? exitCodes.unreachable : exitCodes.failure,
    detail: `${error.message} (${error.code})`,
    hint: 'Mend what is named and run it again; what has been copied stays.',
    cause: error,
  });
}

/** A folder that has lost everything is not taken for one in which everything was deleted. */
const emptied = (what: string, pair: Pair) =>
  new Failure('sync-emptied', `${what}.`, {
    exitCode: exitCodes.conflict,
    detail: `The other side still has its files; they were not deleted.`,
    hint: `Is a disk not mounted? To copy all of it there again: cde sync --forget ${pair.local} ${pair.workspace}:${pair.remote} (--allow-empty instead deletes it here, too)`,
  });

const incomplete = (status: Status) =>
  new Failure('sync-incomplete', 'Not everything could be made the same.', {
    detail:
      status.problems > 0
        ? `${status.problems} paths have a problem; see above.`
        : 'Files change all the time.',
    hint: 'Mend what is named and run it again.',
  });
