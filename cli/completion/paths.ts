import type { Context } from '../command/context.ts';
import { parseOperand } from '../copy/operands.ts';
import { openSftpSide } from '../copy/sftp-side.ts';
import { isPlainName } from '../copy/tree-walk.ts';

/** The paths of a workspace that begin with a word such as `web:src/ap`; folders end with a slash. Starts nothing. */
export async function listPaths(context: Context, word: string, maxPaths: number): Promise<string[]> {
  const { workspace, path } = parseOperand(word);
  if (workspace === null) return [];
  const folder = path.slice(0, path.lastIndexOf('/') + 1);
  const begin = path.slice(folder.length);
  const side = await openSftpSide(context, workspace, { start: false });
  try {
    const names = await Promise.race([side.list(folder === '' ? '.' : folder), side.ended]);
    return names
      .filter(
        ({ text }) =>
          text !== null &&
          isPlainName(text) &&
          text.startsWith(begin) &&
          // Hidden ones only if asked for, as in a shell.
          (begin !== '' || !text.startsWith('.')),
      )
      .slice(0, maxPaths)
      .map(({ text, isFolder }) => `${workspace}:${folder}${text}${isFolder ? '/' : ''}`)
      .sort();
  } finally {
    side.close();
  }
}
