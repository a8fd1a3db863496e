import type { Client } from '@cde/api/client.ts';
import type { Build, LogLine } from '@cde/api/workspaces.ts';
import type { Context } from '../command/context.ts';
import { getBuildLog } from '../connection/endpoints.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure } from '../failure/failure.ts';
import type { Output } from '../output/output.ts';
import { formatLogLine } from './log-lines.ts';
import { makeProgress, type Progress } from './progress.ts';

/** A restarting server is back within this time. The build continues meanwhile. */
export const followPatienceMs = 120_000;

/** How long a command that waits for a build retries its request: a restarting server is back by then. */
export const askPatienceMs = 20_000;

/** A stage can change without a log line. This is the longest delay until it shows on the screen. */
const pollSeconds = 1;

/** Log lines shown of a failed stage: enough for its error, not for the whole log. */
const shownLines = 30;

/** Resolves to the finished build, or rejects with `build-failed` or `build-cancelled`. */
export async function waitForBuild(
  context: Context,
  client: Client,
  name: string,
  build: Build,
  progress?: Progress,
): Promise<Build> {
  const display = progress ?? makeProgress(context.out);
  const kept: LogLine[] = [];
  try {
    for await (const batch of followLog(client, build, pollSeconds)) {
      kept.push(...batch.lines);
      if (kept.length > 2_000) kept.splice(0, kept.length - 1_000);
      display.update(name, batch.build, batch.lines);
      build = batch.build;
    }
  } catch (error) {
    if (context.signal.aborted) throw interrupted(name, build);
    throw error;
  } finally {
    if (!progress) display.finish();
  }
  if (build.status === 'succeeded') return build;
  throw buildFailure(context.out, name, build, kept);
}

/** Yields log lines in batches until the build has ended and its last lines are read. */
export async function* followLog(
  client: Client,
  build: Build,
  waitSeconds: number,
): AsyncGenerator<{ lines: LogLine[]; build: Build }> {
  // The first request returns at once, later ones wait for new lines.
  for (let after = 0, wait = 0; ; wait = waitSeconds) {
    const reply = await client.call(getBuildLog, { params: { build: build.id }, query: { after, wait } });
    after = reply.lines.at(-1)?.seq ?? after;
    yield { lines: reply.lines, build: reply.build };
    if (reply.done) return;
  }
}

function interrupted(name: string, build: Build): Failure {
  return new Failure('interrupted', `Stopped waiting, but build ${build.number} of ${name} continues.`, {
    exitCode: exitCodes.interrupted,
    hint: `Follow it: cde logs ${name} --follow\nCancel it: cde cancel ${name}`,
  });
}

function buildFailure(out: Output, name: string, build: Build, lines: LogLine[]): Failure {
  if (build.status === 'cancelled')
    return new Failure('build-cancelled', `Build ${build.number} of ${name} was cancelled.`, {
      exitCode: exitCodes.buildFailed,
      hint: `Its log: cde logs ${name} --build ${build.number}`,
    });
  const { error } = build;
  // The last line of the log is the error, which is printed below with more detail.
  const tellsTheSame = (line: LogLine) =>
    error !== null && line.source === 'server' && line.text.startsWith(error.message);
  const stage = error?.stage ?? build.stages.find((entry) => entry.status === 'failed')?.name;
  for (const line of lines
    .filter((entry) => entry.stage === stage && !tellsTheSame(entry))
    .slice(-shownLines))
    out.note(formatLogLine(line, out.noteColors, false));
  return new Failure(
    error?.code ?? 'build-failed',
    error?.message ?? `Build ${build.number} of ${name} failed.`,
    {
      exitCode: exitCodes.buildFailed,
      detail: [stage && `Build ${build.number} of ${name} failed in stage ${stage}.`, error?.detail]
        .filter(Boolean)
        .join('\n'),
      hint: [error?.hint, `The whole log: cde logs ${name} --build ${build.number}`]
        .filter(Boolean)
        .join('\n'),
      actions: error?.actions,
    },
  );
}
