import { setTimeout as delay } from 'node:timers/promises';
import {
  netcheck as measure,
  type NetcheckReport,
  type NetcheckSatellite,
} from '@cde/tunnel/netcheck/netcheck.ts';
import type { Context } from '../command/context.ts';
import { line, type Result, result } from '../command/result.ts';
import { startNetcheck } from '../connection/endpoints.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure, toFailure } from '../failure/failure.ts';
import { renderEvent } from '../output/render.ts';
import { verdicts, view, watchLine } from './view.ts';

/** A list of satellites that takes longer leaves no time to measure them. */
const listTimeoutMs = 4_000;
/** From the end of a measurement to the next. */
const watchPauseMs = 3_000;

interface Input {
  satellite: string | undefined;
  throughput: boolean;
  watch: boolean;
}

/** Exits with `unreachable` if no satellite answers HTTPS. */
export async function netcheck(context: Context, input: Input): Promise<Result | number> {
  if (input.watch) return watch(context, input);
  const { report, failure } = await measureOnce(context, input, (text) => context.out.note(text));
  return result(
    { ...report, ...(failure && { failure: failure.toJSON() }) },
    () => view(report, input.throughput, failure),
    isReachable(report) ? exitCodes.success : exitCodes.unreachable,
  );
}

const isReachable = ({ satellites }: NetcheckReport) => satellites.some(({ https }) => https.rttMs !== null);

/** `failure`: why there is no list of satellites. The rest of the report is about the server then. */
export async function measureOnce(
  context: Context,
  input: Omit<Input, 'watch'>,
  note: (text: string) => void,
): Promise<{ report: NetcheckReport; failure: Failure | null }> {
  const { signal } = context;
  const { url } = context.server();
  const client = await context.client();
  let failure: Failure | null = null;
  const reply = client
    .call(startNetcheck, { signal: AbortSignal.any([signal, AbortSignal.timeout(listTimeoutMs)]) })
    .catch((error) => {
      failure = unreachable(error, url);
      if (!failure || signal.aborted) throw error;
      return null;
    });
  note('Measuring.');
  const report = await measure(
    reply.then((known) => (known ? select(known.satellites, input.satellite) : [])),
    {
      signal,
      server: url,
      token: input.throughput ? reply.then((known) => known?.token) : undefined,
      note: (text) => note(`${text[0]!.toUpperCase()}${text.slice(1)}.`),
    },
  );
  return { report, failure };
}

/** The failure if the server did not answer, which the report then explains; null for a refusal. */
function unreachable(error: unknown, url: string): Failure | null {
  const { name } = error as Error;
  if (name === 'AbortError' || name === 'TimeoutError')
    return new Failure('server-unreachable', `No answer from ${url} within ${listTimeoutMs / 1_000} s.`, {
      exitCode: exitCodes.unreachable,
    });
  const failure = toFailure(error);
  return failure.exitCode === exitCodes.unreachable ? failure : null;
}

function select(satellites: readonly NetcheckSatellite[], wanted: string | undefined): NetcheckSatellite[] {
  const places = satellites.filter(({ name }) => wanted === undefined || name === wanted);
  if (places.length > 0) return places;
  throw new Failure(
    'satellite-not-found',
    wanted === undefined ? 'No satellite is online.' : `No satellite ${wanted} is online.`,
    {
      exitCode: exitCodes.notFound,
      hint: satellites.length > 0 ? `Online: ${satellites.map(({ name }) => name).join(', ')}` : undefined,
    },
  );
}

/** Until Ctrl-C: a line for each measurement, and each verdict that has changed. */
async function watch(context: Context, input: Input): Promise<number> {
  const { out, signal } = context;
  out.note('Measuring every few seconds. Ctrl-C stops.');
  let before: Map<string, string> | undefined;
  let code: number = exitCodes.unreachable;
  while (!signal.aborted) {
    try {
      const { report, failure } = await measureOnce(context, input, () => {});
      const now = verdicts(report);
      const changes = [...now].filter(([name, text]) => before !== undefined && before.get(name) !== text);
      before = now;
      code = isReachable(report) ? exitCodes.success : exitCodes.unreachable;
      const at = new Date();
      renderEvent(
        out,
        { event: 'measured', at: at.toISOString(), ...report, ...(failure && { failure: failure.toJSON() }) },
        line(watchLine(report, failure, at)),
        ...changes.map(([name, text]) => line(`          ${name} is now: ${text}`)),
      );
      await delay(watchPauseMs, undefined, { signal });
    } catch (error) {
      // It runs until Ctrl-C.
      if (!signal.aborted) throw error;
    }
  }
  return code;
}
