import { usage } from '../failure/failure.ts';

/** One side of a copy: a path of this machine, or one of a workspace. */
export type Operand = { workspace: null; path: string } | { workspace: string; path: string };

/**
 * Reads `PATH` or `WORKSPACE:PATH`, where WORKSPACE is `NAME` or `OWNER/NAME`. A local name with a colon is written
 * `./like:this`; an empty PATH is the home.
 */
export function parseOperand(text: string): Operand {
  if (text === '') throw usage('An empty word names no file.');
  if (text.includes('\0')) throw usage('A path holds no NUL character.');
  requireText(text);
  const match = /^((?:[a-z0-9][a-z0-9-]*\/)?[a-z0-9][a-z0-9-]*):(.*)$/is.exec(text);
  return match ? { workspace: match[1]!, path: match[2]! } : { workspace: null, path: text };
}

/**
 * Node replaces bytes that are not UTF-8 in an argument. The result names a different file, which would be read or written
 * instead.
 */
export function requireText(argument: string): void {
  if (!argument.includes('\ufffd')) return;
  throw usage(
    `The name ${JSON.stringify(argument)} is not UTF-8, so it cannot be passed on as it is.`,
    'Rename the file, or name the folder that it is in: rsync copies what is in it byte for byte.',
  );
}

/** The operand as it is written on the command line. */
export const formatOperand = ({ workspace, path }: Operand): string =>
  workspace === null ? path : `${workspace}:${path}`;
