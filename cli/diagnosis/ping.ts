import { setTimeout as delay } from 'node:timers/promises';
import type { RoundTrip, Session } from '@cde/tunnel/session/session.ts';
import type { Context } from '../command/context.ts';
import { line } from '../command/result.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { toFailure, usage } from '../failure/failure.ts';
import { clean } from '../output/output.ts';
import { renderEvent } from '../output/render.ts';
import type { Opening } from '../ssh/opening.ts';
import { maintainSession, type OpenedSession } from '../ssh/sessions.ts';
import { makePingRecord, type PingRecord, summaryLines } from './ping-summary.ts';

/** A round trip that takes longer counts as lost: nobody types that slowly. */
const timeoutMs = 5_000;
const minIntervalMs = 200;

/** Exits with `unreachable` if no round trip was answered. */
export async function ping(
  context: Context,
  input: {
    workspace: string;
    count: number | undefined;
    interval: string | undefined;
    path: string | undefined;
  },
): Promise<number> {
  const { out, signal } = context;
  const intervalMs = readInterval(input.interval);
  if (input.count === 0) throw usage('--count must be at least 1.');
  let latest: OpenedSession | undefined;
  const sessions = maintainSession(context, input.workspace, false, { path: input.path }, (opened) => {
    latest = opened;
  });
  const record = makePingRecord();
  try {
    await sessions.get();
    out.note(`Pinging ${clean(latest!.opening.workspace)}. Ctrl-C stops.`);
    while (!signal.aborted && record.sent < (input.count ?? Number.POSITIVE_INFINITY)) {
      const began = performance.now();
      const session = await Promise.race([sessions.get(), sessions.ended]);
      const answer = await Promise.race([roundTrip(session), sessions.ended]);
      report(context, record, answer, latest!.opening);
      if (record.sent === input.count) break;
      await delay(Math.max(0, intervalMs - (performance.now() - began)), undefined, { signal });
    }
  } catch (error) {
    // It runs until Ctrl-C: that is how it is meant to end.
    if (!signal.aborted || record.sent === 0) throw error;
  } finally {
    sessions.close();
  }
  const summary = record.summary(latest!, input.path);
  renderEvent(out, { event: 'summary', ...summary }, ...summaryLines(summary).map(line));
  return summary.answered > 0 ? exitCodes.success : exitCodes.unreachable;
}

function readInterval(text: string | undefined): number {
  if (text === undefined) return 1_000;
  const ms = /^\d{1,4}(\.\d{1,3})?$/.test(text) ? Number(text) * 1_000 : 0;
  if (ms < minIntervalMs)
    throw usage(
      `--interval takes a number of seconds of at least ${minIntervalMs / 1_000}, not ${JSON.stringify(text)}.`,
    );
  return ms;
}

/** Resolves to the reason if there is no answer in time. */
async function roundTrip(session: Session): Promise<RoundTrip | { lost: string }> {
  const stop = new AbortController();
  try {
    return await Promise.race([
      session.roundTrip(),
      delay(timeoutMs, { lost: `no answer within ${timeoutMs / 1_000} s` }, { signal: stop.signal }),
    ]);
  } catch (error) {
    return { lost: toFailure(error).message };
  } finally {
    stop.abort();
  }
}

function report(
  { out }: Context,
  record: PingRecord,
  answer: RoundTrip | { lost: string },
  { satellites }: Pick<Opening, 'satellites'>,
): void {
  const at = new Date().toISOString();
  if ('lost' in answer) {
    const number = record.lost();
    const text = `${out.colors.red('lost')}: ${clean(answer.lost)}`;
    renderEvent(out, { event: 'lost', number, at, reason: answer.lost }, line(`${number}  ${text}`));
    return;
  }
  const number = record.answered(answer);
  const { name = null, region = null } = satellites.find(({ url }) => url === answer.via) ?? {};
  const place = answer.kind === 'relay' ? `${name ?? answer.via}${region ? `, ${region}` : ''}` : answer.via;
  renderEvent(
    out,
    { event: 'round-trip', number, at, satellite: name, region, ...rounded(answer) },
    line(
      `${number}  ${out.colors.bold(ms(answer.totalMs))}  ${clean(`${answer.kind} ${place}`)}${legs(answer)}`,
    ),
  );
}

function legs({ kind, clientMs, agentMs, agentMsIs }: RoundTrip): string {
  if (kind !== 'relay') return '';
  const agent =
    agentMs === null ? 'unknown' : `${ms(agentMs)}${agentMsIs === 'reported' ? ' when last reported' : ''}`;
  return `: to the satellite ${clientMs === null ? 'unknown' : ms(clientMs)}, satellite to agent ${agent}`;
}

const rounded = (trip: RoundTrip): RoundTrip => {
  const round = (value: number | null) => (value === null ? null : Math.round(value * 100) / 100);
  return {
    ...trip,
    totalMs: round(trip.totalMs)!,
    clientMs: round(trip.clientMs),
    agentMs: round(trip.agentMs),
  };
};

const ms = (value: number) => `${value.toFixed(1)} ms`;
