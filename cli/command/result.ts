import type { Colors, Column } from '../output/output.ts';

/** What a command returns to the renderer: the data for `--json`, and its view for people. */
export interface Result {
  data: unknown;
  view: View;
  /** 0 if missing. */
  exitCode?: number | undefined;
}

/** Called only without `--json`, so it can load code that only the view needs. */
export type View = (format: Format) => Blocks | Promise<Blocks>;
export type Blocks = (Block | null | undefined | false | '')[];

export interface Format {
  colors: Colors;
  /** A time: relative on a terminal, ISO 8601 in a pipe. */
  moment(iso: string): string;
  moment(iso: string | null): string | null;
}

export type Block =
  | { kind: 'table'; columns: Column<never>[]; rows: unknown[]; empty: string }
  | { kind: 'fields'; fields: [string, string | null | undefined][] }
  /** A line on stdout: part of the result. */
  | { kind: 'line'; text: string }
  /** A line on stderr, for people only. */
  | { kind: 'note'; text: string };

export function result(data: unknown, view: View, exitCode?: number): Result {
  return { data, view, exitCode };
}

export function table<T>(columns: Column<T>[], rows: T[], empty: string): Block {
  return { kind: 'table', columns: columns as Column<never>[], rows, empty };
}

export const fields = (list: [string, string | null | undefined][]) =>
  ({ kind: 'fields', fields: list }) satisfies Block;
export const line = (text: string) => ({ kind: 'line', text }) satisfies Block;
export const note = (text: string) => ({ kind: 'note', text }) satisfies Block;
