import { posix } from 'node:path';
import { bytes } from '@cde/api/sizes.ts';
import type { Context } from '../command/context.ts';
import { note, type Result, result } from '../command/result.ts';
import { Failure, usage } from '../failure/failure.ts';
import { clean } from '../output/output.ts';
import { duration } from '../output/times.ts';
import type { PathChoice } from '../ssh/opening.ts';
import type { StartInput } from '../ssh/start-option.ts';
import { startChoice } from '../ssh/start-question.ts';
import { copyFile, type FileLocation, safeMode } from './copy-file.ts';
import { localSide } from './local-side.ts';
import { type Meter, makeMeter } from './meter.ts';
import { formatOperand, type Operand, parseOperand } from './operands.ts';
import { makePool } from './pool.ts';
import type { Side, Status } from './side.ts';
import { checkStreams, copyFromStdin, copyToStdout, isStream } from './stream.ts';
import { asFailure, expand, isFileFailure, isPlainName, type Step, walk } from './tree-walk.ts';

/** Files copied concurrently: each small one costs at least a round trip. */
const maxConcurrentFiles = 24;

interface Totals {
  files: number;
  bytes: number;
  /** Bytes that an earlier attempt had copied. */
  kept: number;
  failures: Failure[];
}

export async function cp(
  context: Context,
  input: {
    paths: string[];
    recursive: boolean;
    preserve: boolean;
    path: string | undefined;
  } & StartInput,
): Promise<Result> {
  const operands = input.paths.map(parseOperand);
  const target = operands.pop()!;
  if (operands.length === 0)
    throw usage('A copy needs a source and a destination.', 'Write cde cp SOURCE… DESTINATION.');
  if (target.workspace === null && operands.every(({ workspace }) => workspace === null))
    throw usage(
      'Neither the source nor the destination is in a workspace.',
      'Write WORKSPACE:PATH for the one that is.',
    );
  checkStreams(operands, target, context.out.json);
  const sides = makeSides(context, input);
  const since = performance.now();
  const meter = makeMeter(context.out);
  const totals: Totals = { files: 0, bytes: 0, kept: 0, failures: [] };
  try {
    // Connects to all workspaces before the first byte, so that a misspelt name is reported at once.
    for (const operand of [target, ...operands]) await sides.of(operand);
    const work = [target, ...operands].some(isStream)
      ? copyStream(context, operands[0]!, target, sides, totals)
      : copyAll(context, { ...input, operands, target }, sides, totals, meter);
    await Promise.race([work, sides.ended]);
  } catch (error) {
    meter.clear();
    if (error instanceof Failure && error.code === 'interrupted') throw interrupted();
    throw error;
  } finally {
    meter.clear();
    sides.close();
  }
  return totalsOf(context, totals, performance.now() - since);
}

async function copyStream(
  context: Context,
  source: Operand,
  target: Operand,
  sides: ReturnType<typeof makeSides>,
  totals: Totals,
): Promise<void> {
  const place = async (operand: Operand) => ({ side: await sides.of(operand), path: operand.path });
  totals.bytes = isStream(target)
    ? await copyToStdout(context, await place(source))
    : await copyFromStdin(context, await place(target), target);
  totals.files = 1;
}

/** The sides, one for each workspace. */
function makeSides(context: Context, input: StartInput & { path: string | undefined }) {
  const start = startChoice(context, input);
  const open = new Map<string, Promise<Side>>();
  let fail: (error: unknown) => void;
  const ended = new Promise<never>((_, reject) => {
    fail = reject;
  });
  ended.catch(() => {});
  return {
    ended,
    async of({ workspace }: Operand): Promise<Side> {
      if (workspace === null) return localSide;
      let side = open.get(workspace);
      if (!side) {
        side = import('./sftp-side.ts').then(async ({ openSftpSide }) => {
          const opened = await openSftpSide(context, workspace, {
            start,
            path: (input.path ?? 'auto') as PathChoice,
          });
          opened.ended.catch((error) => fail(error));
          return opened;
        });
        open.set(workspace, side);
      }
      return side;
    },
    close() {
      for (const side of open.values())
        side.then(
          (opened) => opened.close(),
          () => {},
        );
    },
  };
}

async function copyAll(
  context: Context,
  input: { operands: Operand[]; target: Operand; recursive: boolean; preserve: boolean },
  sides: ReturnType<typeof makeSides>,
  totals: Totals,
  meter: Meter,
): Promise<void> {
  const side = await sides.of(input.target);
  const into = { side, path: input.target.path || '.' };
  const there = await side.status(into.path);
  const sources: FileLocation[] = [];
  for (const { workspace, path } of input.operands) {
    const from = await sides.of({ workspace, path } as Operand);
    const paths = workspace === null ? [path] : await expand(from, path);
    if (paths.length === 0) throw notFound(formatOperand({ workspace, path } as Operand));
    sources.push(...paths.map((each) => ({ side: from, path: each })));
  }
  const mustBeFolder = sources.length > 1 || /\/$/.test(input.target.path);
  if (mustBeFolder && there?.kind !== 'folder')
    throw new Failure('file-not-folder', `${formatOperand(input.target)} is not a folder.`, {
      hint: 'Several sources, and a destination that ends with /, need a folder that exists.',
    });

  let single = false;
  const pool = makePool(maxConcurrentFiles);
  const { signal } = context;
  const onStep = async (step: Step): Promise<void> => {
    signal.throwIfAborted();
    if (step.do === 'fail') return failed(step.error);
    if (step.do === 'folder') return makeFolder(step.to, step.source);
    if (step.do === 'leave') {
      await pool.idle();
      return input.preserve ? finishFolder(step.from, step.to, step.source) : undefined;
    }
    await pool.start(() => one(step));
  };
  async function one(step: Step & { do: 'file' }): Promise<void> {
    meter.begin(step.from.side.label(step.from.path), step.source.size);
    try {
      await copyFile(step.from, step.source, step.to, {
        preserve: input.preserve,
        signal,
        onBytes(count, kept) {
          totals.bytes += kept ? 0 : count;
          totals.kept += kept ? count : 0;
          meter.add(count);
        },
      });
      totals.files += 1;
    } catch (error) {
      if (!isFileFailure(error)) throw error;
      failed(asFailure(error));
    }
  }
  function failed(error: Failure): void {
    meter.clear();
    // A single failure is the command's own, which is reported at the end.
    if (!single) context.out.note(clean(`${error.message}${error.detail ? ` (${error.detail})` : ''}`));
    totals.failures.push(error);
  }

  for (const from of sources) {
    try {
      const status = await from.side.status(from.path || '.');
      if (!status) throw notFound(from.side.label(from.path));
      single = sources.length === 1 && status.kind !== 'folder';
      const name = nameOf(from.path);
      // `FOLDER/.` means the contents of the folder.
      const path = there?.kind === 'folder' && name !== null ? posix.join(into.path, name) : into.path;
      if (status.kind === 'folder' && !input.recursive)
        throw new Failure('file-is-folder', `${from.side.label(from.path)} is a folder.`, {
          hint: 'With -r it is copied with all that is in it.',
        });
      for await (const step of walk({ ...from, path: from.path || '.' }, status, { side, path }))
        await onStep(step);
    } catch (error) {
      // A single source: its own failure is the command's.
      if (sources.length === 1 || !isFileFailure(error)) throw error;
      failed(asFailure(error));
    }
  }
  await pool.idle();
  if (single && totals.failures.length > 0) throw totals.failures[0];
}

/** The name of a source's copy; null if only the contents are copied. */
function nameOf(path: string): string | null {
  if (path === '' || path === '~' || /(^|\/)\.{1,2}\/*$/.test(path)) return null;
  const name = posix.basename(path);
  return isPlainName(name) ? name : null;
}

async function makeFolder(to: FileLocation, source: Status): Promise<void> {
  const there = await to.side.status(to.path);
  if (there?.kind === 'folder') return;
  if (there)
    throw new Failure('file-not-folder', `${to.side.label(to.path)} is not a folder.`, {
      hint: 'Move it away, or copy to another name.',
    });
  // Nothing could be copied into a folder that its owner cannot write to.
  await to.side.makeFolder(to.path, (source.mode & 0o777) | 0o700);
}

async function finishFolder(from: FileLocation, to: FileLocation, source: Status): Promise<void> {
  await to.side.setMode(to.path, safeMode(from, source.mode));
  await to.side.setTimes(to.path, source.accessed, source.modified);
}

function totalsOf({ out }: Context, { files, bytes: size, kept, failures }: Totals, ms: number): Result {
  if (failures.length > 0) {
    throw new Failure(
      'copy-incomplete',
      `${failures.length} of ${files + failures.length} files were not copied.`,
      {
        // Without --json each was printed when it happened.
        detail: out.json
          ? failures
              .slice(0, 20)
              .map(({ message, detail }) => (detail ? `${message} ${detail}` : message))
              .join('\n')
          : undefined,
        hint: 'The others are complete. Fix the problems above and copy again.',
      },
    );
  }
  return result({ files, bytes: size, keptBytes: kept, ms: Math.round(ms) }, () => [
    note(
      `${files} ${files === 1 ? 'file' : 'files'}, ${bytes(size)} in ${duration(ms)}` +
        (kept > 0 ? `, ${bytes(kept)} resumed from an earlier attempt` : ''),
    ),
  ]);
}

const notFound = (label: string) =>
  new Failure('file-not-found', `${label} does not exist.`, { exitCode: 3, hint: 'Check the path.' });

const interrupted = () =>
  new Failure('interrupted', 'Interrupted.', {
    exitCode: 130,
    hint: 'Copied files are complete. Repeat the command to resume the rest.',
  });
