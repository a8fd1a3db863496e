import { invisibleCharacters } from '@cde/api/reordering.ts';
import type { LogLine } from '@cde/api/workspaces.ts';

// Lines that a browser lays out together; earlier chunks are untouched objects, so React skips them.
const chunkLines = 200;

/** A build's log as far as it is known: all lines up to `last`, and lines that arrived early. */
export interface Log {
  chunks: readonly (readonly LogLine[])[];
  last: number;
  early: readonly LogLine[];
}

export const emptyLog: Log = { chunks: [], last: 0, early: [] };

/** Adds lines that follow `log.last` in the server's order, as `getBuildLog` answers. */
export function addFetched(log: Log, lines: readonly LogLine[]): Log {
  const known = append(log, lines);
  return absorb(known, []);
}

/**
 * Adds lines from an event. Lines that do not follow the last one (an event was lost, or the first page has not
 * arrived) are set aside, and `gap` tells the caller to fetch everything after `log.last`.
 */
export function addLive(log: Log, lines: readonly LogLine[]): { log: Log; gap: boolean } {
  const next = absorb(log, lines);
  return { log: next, gap: next.early.length > 0 };
}

function absorb(log: Log, lines: readonly LogLine[]): Log {
  const waiting = [...log.early, ...lines].sort((a, b) => a.seq - b.seq);
  let { last } = log;
  const fit: LogLine[] = [];
  const early: LogLine[] = [];
  for (const line of waiting) {
    if (line.seq <= last || early.at(-1)?.seq === line.seq) continue;
    if (line.seq === last + 1) {
      fit.push(line);
      last = line.seq;
    } else early.push(line);
  }
  if (fit.length === 0 && early.length === log.early.length) return log;
  return { ...append(log, fit), early };
}

function append(log: Log, lines: readonly LogLine[]): Log {
  const fresh = lines.filter((line) => line.seq > log.last);
  if (fresh.length === 0) return log;
  const chunks = [...log.chunks];
  let open = [...(chunks.at(-1)?.length === chunkLines ? [] : (chunks.pop() ?? []))];
  for (const line of fresh) {
    open.push(line);
    if (open.length === chunkLines) {
      chunks.push(open);
      open = [];
    }
  }
  if (open.length > 0) chunks.push(open);
  return { chunks, last: fresh.at(-1)!.seq, early: log.early };
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are the control characters to remove
const escapes = /\u001b(?:\[[0-9;:?<=>]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[ -/]*[0-~])/g;
const controls = new RegExp(String.raw`(?![\t\n])\p{Cc}|[${invisibleCharacters}]`, 'gu');

/** A line as a terminal shows it: without colour codes, and with the last state of a progress bar. */
export function plainText(text: string): string {
  const bare = text.replace(escapes, '').replace(/\r+$/, '');
  return bare.slice(bare.lastIndexOf('\r') + 1).replace(controls, '');
}

/** The whole log for the clipboard: time, stage and text of each line. */
export function logText(log: Log): string {
  return log.chunks
    .flat()
    .map((line) => `${line.at} ${line.stage.padEnd(9)} ${plainText(line.text)}`)
    .join('\n');
}
