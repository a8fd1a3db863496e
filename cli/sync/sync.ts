import { realpath } from 'node:fs/promises';
import { basename, dirname, join, posix, resolve } from 'node:path';
import { findRoot, makeDiskTree } from '@cde/filesync/disk.ts';
import { openRemoteTree } from '@cde/filesync/remote.ts';
import { type Tree, TreeError } from '@cde/filesync/tree.ts';
import type { Context } from '../command/context.ts';
import type { Result } from '../command/result.ts';
import { getWorkspace } from '../connection/endpoints.ts';
import { parseOperand } from '../copy/operands.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure, toFailure, usage } from '../failure/failure.ts';
import { maintainSession } from '../ssh/sessions.ts';
import type { StartInput } from '../ssh/start-option.ts';
import { startChoice } from '../ssh/start-question.ts';
import { pathRef } from '../workspaces/reference.ts';
import { EmptiedError, makeEngine } from './engine.ts';
import { list } from './list.ts';
import { makeConflictName } from './names.ts';
import { makeReporter } from './reporter.ts';
import { makeIsRuleFile } from './rule-files.ts';
import { markRuleFiles, openRuleMarks } from './rule-marks.ts';
import { makeRuleReader } from './rule-reader.ts';
import { lockPair, openState, type Pair, type Status } from './state.ts';

export interface SyncInput extends StartInput {
  folders: string[];
  once: boolean;
  dryRun: boolean;
  list: boolean;
  ignore: string[];
  gitignore: boolean;
  git: boolean;
  allowEmpty: boolean;
  /** Starts as if the two had never been synced. */
  forget: boolean;
  path: string | undefined;
}

export async function sync(context: Context, input: SyncInput): Promise<Result | number | undefined> {
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
  const found = await findLocalRoot(context, here, pairOf, input);
  const pair = pairOf(found.path);
  const state = openState(context.env, pair);
  const status: Status = { pid: process.pid, state: 'connecting', files: 0, problems: 0 };
  const taken = input.dryRun ? null : await lockPair(context.env, pair, () => status);
  const start = input.dryRun ? false : startChoice(context, input);
  const sessions = maintainSession(context, workspace, start, { path: input.path });
  let remoteTree: Tree | null = null;
  let local: Tree | null = null;
  context.signal.addEventListener('abort', () => remoteTree?.close(), { once: true });
  const reporter = makeReporter(context, pair, status);
  try {
    const base = input.forget ? new Map() : state.read();
    let engine: ReturnType<typeof makeEngine> | null = null;
    const begin = async () => {
      local = await openLocal(context, found, input.dryRun);
      const marks = openRuleMarks(context.env);
      return makeEngine({
        local: markRuleFiles(local, found.path, marks),
        base,
        save: (now) => state.save(now, new Date()),
        rules: makeRuleReader(found.path, input, marks),
        isRuleFile: makeIsRuleFile(input),
        conflictName: makeConflictName(workspace, () => new Date()),
        allowEmpty: input.allowEmpty,
        tell: reporter.report,
      });
    };
    for (let first = true; ; first = false) {
      status.state = 'connecting';
      // A folder that exists on neither side is a typo.
      const create = found.exists && !input.dryRun && (base.size === 0 || input.allowEmpty);
      const tree = await openRemote(sessions, remote, create && first).catch((error) => {
        const isMissing = error instanceof TreeError && error.code === 'root-missing';
        if (isMissing && first && !found.exists) throw noFolderOnEitherSide(pair);
        if (isMissing && create && first) throw folderNotCreated(error, pair);
        if (isMissing && input.dryRun && base.size === 0) return emptyTree;
        throw readable(error, pair);
      });
      remoteTree = tree;
      engine ??= await begin();
      if (first) reporter.begin(input);
      else reporter.connected();
      status.state = 'syncing';
      if (input.dryRun) {
        reporter.plan((await engine.plan(tree)).actions);
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
        reporter.lost();
      } finally {
        tree.close();
        // It abandons its transfers and leaves no partial files.
        await working.catch(() => {});
      }
    }
  } catch (error) {
    throw readable(error, pair);
  } finally {
    reporter.end();
    (local as Tree | null)?.close();
    (remoteTree as Tree | null)?.close();
    sessions.close();
    taken?.release();
  }
}

/** One argument is a local folder, the other one a folder in a workspace. */
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

interface LocalRoot {
  /** Without links in it. */
  path: string;
  exists: boolean;
}

/** The local folder; one that does not exist yet is made once the remote one is known to exist. */
async function findLocalRoot(
  context: Context,
  here: string,
  pairOf: (local: string) => Pair,
  input: SyncInput,
): Promise<LocalRoot> {
  const path = resolve(here);
  try {
    return { path: await findRoot(path, false), exists: true };
  } catch (error) {
    if (!(error instanceof TreeError) || error.code !== 'root-missing') throw readable(error, pairOf(path));
  }
  const real = await realPathOfMissing(path);
  const pair = pairOf(real);
  if (openState(context.env, pair).read().size > 0 && !input.allowEmpty && !input.forget)
    throw sideEmptied(`${path} is gone`, pair);
  return { path: real, exists: false };
}

/** What `realpath` returns once the folder exists, so that it is the same pair before and after. */
async function realPathOfMissing(path: string): Promise<string> {
  const parent = dirname(path);
  if (parent === path) return path;
  const real = await realpath(parent).catch(() => realPathOfMissing(parent));
  return join(real, basename(path));
}

async function openLocal(context: Context, { path, exists }: LocalRoot, dryRun: boolean): Promise<Tree> {
  if (!exists && dryRun) return { ...emptyTree };
  if (!exists) await findRoot(path, true);
  context.signal.throwIfAborted();
  return makeDiskTree(path);
}

async function openRemote(
  sessions: ReturnType<typeof maintainSession>,
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

/** An empty tree: the local side of a dry run into a folder that does not exist yet. */
const emptyTree: Tree = {
  scan: async () => ({ entries: new Map(), skipped: [] }),
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
    return sideEmptied(`${error.side === 'local' ? pair.local : there} is empty all of a sudden`, pair);
  if (toFailure(error).code === 'target-invalid')
    return new Failure('agent-too-old', `The agent of ${pair.workspace} cannot keep folders in step yet.`, {
      exitCode: exitCodes.conflict,
      detail: 'It is of an older release than this cde.',
      hint: `Restart it: cde restart ${pair.workspace}`,
      cause: error,
    });
  if (!(error instanceof TreeError)) return error;
  if (error.code === 'root-missing') return sideEmptied(error.message, pair);
  const { path } = (error.cause ?? {}) as NodeJS.ErrnoException;
  return new Failure('sync-failed', 'The folders cannot be kept in step.', {
    exitCode: error.code === 'disconnected' ? exitCodes.unreachable : exitCodes.failure,
    detail: `${path && !error.message.includes(path) ? `${path}: ` : ''}${error.message} [${error.code}]`,
    hint: 'Fix what is named and run it again; what has been copied stays.',
    cause: error,
  });
}

const noFolderOnEitherSide = (pair: Pair) =>
  new Failure('file-not-found', `Neither ${pair.local} nor ${pair.workspace}:${pair.remote} exists.`, {
    exitCode: exitCodes.notFound,
    hint: 'Check both paths; a folder that exists on one side is made on the other.',
  });

const folderNotCreated = (error: unknown, pair: Pair) =>
  new Failure('sync-failed', `${pair.workspace}:${pair.remote} cannot be made.`, {
    detail: 'The file system there does not take a new folder at this path.',
    hint: 'Name a folder in the home, or one that exists.',
    cause: error,
  });

/** A folder that is suddenly empty does not count as one whose files were deleted. */
const sideEmptied = (what: string, pair: Pair) =>
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
    hint: 'Fix what is named and run it again.',
  });
