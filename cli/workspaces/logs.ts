import { followLog, followPatienceMs } from '../builds/follow.ts';
import { formatLogLine } from '../builds/log-lines.ts';
import type { Context } from '../context.ts';
import { getBuildLog } from '../endpoints.ts';
import { exitCodes } from '../exit-codes.ts';
import { Failure } from '../failure.ts';
import { findBuild } from './find-build.ts';

/** How long one request is held open. Proxies commonly drop silent connections after 30 or 60 seconds. */
const holdSeconds = 20;

export async function logs(
  context: Context,
  input: { workspace: string; build: number | undefined; follow: boolean },
): Promise<number | undefined> {
  const { out } = context;
  const client = await context.client({ patienceMs: input.follow ? followPatienceMs : undefined });
  let build = await findBuild(client, input.workspace, input.build);
  if (input.follow) {
    for await (const batch of followLog(client, build, holdSeconds)) {
      for (const line of batch.lines)
        if (out.json) out.printJsonLine(line);
        else out.print(formatLogLine(line, out.colors, true));
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
  // Printed page by page, because a log may not fit in memory.
  let count = 0;
  if (out.json) out.print('[');
  for (let after = 0; ; ) {
    const { lines } = await client.call(getBuildLog, { params: { build: build.id }, query: { after } });
    const last = lines.at(-1)?.seq ?? after;
    for (const line of lines) {
      if (out.json) out.printJsonItem(line, count === 0);
      else out.print(formatLogLine(line, out.colors, true));
      count += 1;
    }
    // Stops if the server returns the same page again.
    if (!(last > after)) break;
    after = last;
  }
  if (out.json) out.print(']');
  if (!build.finishedAt)
    out.note(`The build is still running. Follow it: cde logs ${input.workspace} --follow`);
  return undefined;
}
