import type { Client } from '@cde/api/client.ts';
import type { LogLine } from '@cde/api/workspaces.ts';
import { followLog, followPatienceMs } from '../builds/follow.ts';
import { formatLogLine } from '../builds/log-lines.ts';
import type { Context } from '../command/context.ts';
import { line } from '../command/result.ts';
import { getBuildLog } from '../connection/endpoints.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure } from '../failure/failure.ts';
import { renderEvent, renderItems } from '../output/render.ts';
import { findBuild } from './find-build.ts';

/** How long one request is held open. Proxies commonly drop silent connections after 30 or 60 seconds. */
const holdSeconds = 20;

export async function logs(
  context: Context,
  input: { workspace: string; build: number | undefined; follow: boolean },
): Promise<number | undefined> {
  const { out } = context;
  const view = (logLine: LogLine) => line(formatLogLine(logLine, out.colors, true));
  const client = await context.client({ patienceMs: input.follow ? followPatienceMs : undefined });
  let build = await findBuild(client, input.workspace, input.build);
  if (input.follow) {
    for await (const batch of followLog(client, build, holdSeconds)) {
      for (const logLine of batch.lines) renderEvent(out, logLine, view(logLine));
      build = batch.build;
    }
    if (build.status === 'succeeded') return undefined;
    throw new Failure(
      build.error?.code ?? (build.status === 'cancelled' ? 'build-cancelled' : 'build-failed'),
      build.error?.message ?? `Build ${build.number} was ${build.status}.`,
      {
        exitCode: exitCodes.buildFailed,
        detail: build.error?.detail,
        hint: build.error?.hint,
        actions: build.error?.actions,
      },
    );
  }
  await renderItems(out, readLog(client, build.id), view);
  if (!build.finishedAt)
    out.note(`The build is still running. Follow it: cde logs ${input.workspace} --follow`);
  return undefined;
}

/** Page by page, because a log may not fit in memory. */
async function* readLog(client: Client, build: string): AsyncGenerator<LogLine> {
  for (let after = 0; ; ) {
    const { lines } = await client.call(getBuildLog, { params: { build }, query: { after } });
    yield* lines;
    const last = lines.at(-1)?.seq ?? after;
    // Stops if the server returns the same page again.
    if (!(last > after)) return;
    after = last;
  }
}
