import { stripVTControlCharacters } from 'node:util';
import { invisibleCharacters } from '@cde/api/reordering.ts';
import picocolors from 'picocolors';
import type { Failure } from '../failure/failure.ts';
import { adviceLines } from './actions.ts';

export type Colors = ReturnType<typeof picocolors.createColors>;

/** A column of a table. `plain` is the cell in a pipe, if it differs from that on a terminal. */
export interface Column<T> {
  title: string;
  cell(row: T, colors: Colors): string;
  plain?(row: T): string;
}

/** Where a command writes: results to stdout, everything else to stderr. */
export interface Output {
  json: boolean;
  /** Whether stdout is a terminal. */
  terminal: boolean;
  /** Whether lines on stderr may be rewritten. */
  live: boolean;
  /** Colours for stdout and stderr. */
  colors: Colors;
  noteColors: Colors;
  width: number;
  /** A line of the result. */
  print(text: string): void;
  /** The result for programs: the API's own object. */
  printJson(value: unknown): void;
  /** One JSON value per line, for streams. */
  printJsonLine(value: unknown): void;
  /** One item of a JSON array whose brackets are printed separately, for results too long for memory. */
  printJsonItem(value: unknown, isFirst: boolean): void;
  /** A note to the user that is not part of the result; nothing with --json. */
  note(text: string): void;
  table<T>(columns: Column<T>[], rows: T[], empty: string): Promise<void>;
  fields(fields: [string, string | null | undefined][]): void;
  fail(failure: Failure): void;
  /**
   * As `fail`, while another program controls the terminal: it may be in raw mode, where a newline does not return to
   * the first column, and the cursor may be in the middle of a line.
   */
  failInSession(failure: Failure): void;
  /** A line between what the programs of a session print on this terminal; nothing if nobody looks at it. */
  noteInSession(text: string): void;
}

const unshowable = new RegExp(String.raw`(?!\t)\p{Cc}|[${invisibleCharacters}]`, 'gu');

/**
 * Text from elsewhere, made safe for a terminal: no escape sequences, no control characters but tabs, nothing that
 * reorders what is shown.
 */
export function clean(text: string): string {
  return stripVTControlCharacters(text).replace(unshowable, '');
}

/** The sequences of picocolors, and all that `clean` removes except newlines and tabs. */
const controls = new RegExp(
  String.raw`\u001b\[[0-9;]{0,20}m|(?![\t\n])\p{Cc}|[${invisibleCharacters}]`,
  'gu',
);

/**
 * A line that may contain text from elsewhere that was not cleaned: keeps colours and removes everything else that
 * moves the cursor, sets a title or types an answer.
 */
export function harmless(line: string): string {
  return line.replace(controls, (found) => (found.startsWith('\u001b[') ? found : ''));
}

const notInJson = new RegExp(String.raw`[^\P{Cc}\n]|[${invisibleCharacters}]`, 'gu');
/** JSON escapes control characters up to U+001F, but terminals also act on later ones. The value does not change. */
const escaped = (json: string) =>
  json.replace(notInJson, (letter) =>
    Array.from(
      { length: letter.length },
      (_, at) => `\\u${letter.charCodeAt(at).toString(16).padStart(4, '0')}`,
    ).join(''),
  );

function wantsColor(env: NodeJS.ProcessEnv, terminal: boolean): boolean {
  if (env.NO_COLOR) return false;
  if (env.FORCE_COLOR) return env.FORCE_COLOR !== '0';
  return terminal && env.TERM !== 'dumb';
}

/** Output to this process's stdout and stderr. */
export function makeOutput(env: NodeJS.ProcessEnv, json: boolean): Output {
  const { stdout, stderr } = process;
  const terminal = stdout.isTTY === true;
  const colors = picocolors.createColors(wantsColor(env, terminal));
  const noteColors = picocolors.createColors(wantsColor(env, stderr.isTTY === true));
  const width = stdout.columns || stderr.columns || 80;
  const print = (text: string) => void stdout.write(`${harmless(text)}\n`);

  return {
    json,
    terminal,
    live: stderr.isTTY === true && env.TERM !== 'dumb' && !json,
    colors,
    noteColors,
    width,
    print,
    printJson: (value) => print(escaped(JSON.stringify(value, null, 2))),
    printJsonItem: (value, isFirst) => print(escaped(`${isFirst ? '  ' : ', '}${JSON.stringify(value)}`)),
    printJsonLine: (value) => print(escaped(JSON.stringify(value))),
    note(text) {
      if (!json) stderr.write(`${harmless(text)}\n`);
    },
    async table(columns, rows, empty) {
      if (!terminal) {
        // For cut, awk and read: one line per row, separated by tabs, without padding.
        print(columns.map((column) => column.title).join('\t'));
        for (const row of rows)
          print(
            columns
              .map((column) =>
                clean(column.plain?.(row) ?? column.cell(row, picocolors.createColors(false))).replaceAll(
                  '\t',
                  ' ',
                ),
              )
              .join('\t'),
          );
        return;
      }
      if (rows.length === 0) return print(empty);
      // Loaded here, because it takes 15 ms, which `cde ssh` has no use for.
      const { alignColumns } = await import('./columns.ts');
      const titles = columns.map((column) => column.title);
      const [head, ...lines] = alignColumns([
        titles,
        ...rows.map((row) => columns.map((column) => column.cell(row, colors))),
      ]);
      print(colors.dim(head!));
      for (const line of lines) print(line);
    },
    fields(fields) {
      const shown = fields.filter(([, value]) => value !== null && value !== undefined && value !== '');
      const longest = Math.max(...shown.map(([title]) => title.length));
      for (const [title, value] of shown)
        print(terminal ? `${colors.dim(title.padEnd(longest))}  ${value}` : `${title}\t${value}`);
    },
    fail: (failure) => void stderr.write(failureText(failure)),
    noteInSession(text) {
      if (stderr.isTTY) stderr.write(`\r\n${noteColors.dim(`cde: ${clean(text)}`)}\r\n`);
    },
    failInSession(failure) {
      const text = failureText(failure);
      stderr.write(stderr.isTTY ? `\r\n${text.replaceAll('\n', '\r\n')}` : text);
    },
  };

  function failureText(failure: Failure): string {
    if (json) return `${escaped(JSON.stringify(failure.toJSON(), null, 2))}\n`;
    const c = noteColors;
    const lines = [`${c.red(c.bold('error:'))} ${clean(failure.message)} ${c.dim(`[${failure.code}]`)}`];
    for (const text of failure.detail?.split('\n') ?? []) lines.push(`  ${clean(text)}`);
    for (const issue of failure.issues ?? []) {
      const place =
        issue.line === undefined ? issue.path : `${issue.path}:${issue.line}:${issue.column ?? 1}`;
      lines.push(`  ${c.bold(clean(place || '(all)'))}  ${clean(issue.message)}`);
    }
    for (const text of adviceLines(failure)) lines.push(`  ${c.cyan('→')} ${clean(text)}`);
    if (failure.requestId && failure.code === 'internal') lines.push(`  request ${failure.requestId}`);
    return `${harmless(lines.join('\n'))}\n`;
  }
}
