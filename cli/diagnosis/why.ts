import type { Incident } from '@cde/api/diagnosis.ts';
import type { Context } from '../command/context.ts';
import { type Block, type Format, line, note, type Result, result } from '../command/result.ts';
import { listIncidents } from '../connection/endpoints.ts';
import { readAll } from '../connection/pages.ts';
import { usage } from '../failure/failure.ts';
import { clean } from '../output/output.ts';
import { parseMoment } from '../output/times.ts';

const defaultSince = '2h';
const maxIncidents = 1_000;

/** What went wrong in the caller's sessions, oldest first. */
export async function why(
  context: Context,
  input: { workspace: string | undefined; since: string | undefined },
): Promise<Result> {
  const since = parseMoment(input.since ?? defaultSince);
  if (since === null)
    throw usage(
      `--since takes a length of time or a moment, not ${JSON.stringify(input.since)}.`,
      'For example 2h, 7d or 2026-05-01.',
    );
  const client = await context.client();
  const { workspace } = input;
  const found = await readAll(
    (query) => client.call(listIncidents, { query: { ...query, since, ...(workspace && { workspace }) } }),
    maxIncidents,
  );
  const incidents = found.reverse();
  return result({ since, incidents }, (format) => [
    ...incidents.flatMap((incident) => describe(incident, format, input.workspace === undefined)),
    incidents.length === 0 &&
      note(
        `Nothing went wrong in your sessions${input.workspace ? ` with ${clean(input.workspace)}` : ''} since ${format.moment(since)}.`,
      ),
  ]);
}

function describe(incident: Incident, { colors: c }: Format, isNamed: boolean): Block[] {
  const at = localTime(incident.at);
  const name = isNamed ? `${c.bold(clean(incident.workspace))}  ` : '';
  const indented = [...incident.evidence, ...incident.ruledOut].map((text) => c.dim(`    ${clean(text)}`));
  if (incident.advice) indented.push(`    ${c.cyan('→')} ${clean(incident.advice)}`);
  return [`${c.dim(at)}  ${name}${clean(incident.summary)}`, ...indented].map(line);
}

/** `2026-11-30 14:02:11`, in the time zone of this machine. */
function localTime(moment: string): string {
  const at = new Date(moment);
  const two = (value: number) => String(value).padStart(2, '0');
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}
