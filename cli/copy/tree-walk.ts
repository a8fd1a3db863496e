import { posix } from 'node:path';
import { Failure, toFailure } from '../failure/failure.ts';
import type { FileLocation } from './copy-file.ts';
import type { ListedName, Side, Status } from './side.ts';

export type Step =
  | { do: 'file'; from: FileLocation; source: Status; to: FileLocation }
  | { do: 'folder'; to: FileLocation; source: Status }
  /** After all its content, because `-p` sets the folder's time then. */
  | { do: 'leave'; from: FileLocation; to: FileLocation; source: Status }
  | { do: 'fail'; error: Failure };

/** Maximum depth; anything deeper is a loop of links that `real` did not reveal. */
const maxDepth = 200;

/** Names from the other side must be plain names, without separators or parent references. */
export function isPlainName(name: string): boolean {
  if (name === '' || name === '.' || name === '..' || /[/\0]/.test(name)) return false;
  return process.platform !== 'win32' || !/[\\:]/.test(name);
}

/**
 * The steps of copying `from` to `to`, each folder before its content. Links are followed, except into a folder that
 * contains them.
 */
export async function* walk(
  from: FileLocation,
  source: Status,
  to: FileLocation,
  above: readonly string[] = [],
): AsyncGenerator<Step> {
  if (source.kind === 'file') return yield { do: 'file', from, source, to };
  const label = from.side.label(from.path);
  if (source.kind === 'other')
    return yield fail('file-not-regular', `${label} is neither a file nor a folder; it was left out.`);
  const real = await from.side.real(from.path);
  if (above.includes(real) || above.length > maxDepth)
    return yield fail('file-loop', `${label} leads back to a folder that it is in; it was left out.`);
  yield { do: 'folder', to, source };
  for (const { text: name, shown } of byName(await from.side.list(from.path))) {
    if (name === null) {
      yield skipUndecodable(`${label}/${shown}`);
      continue;
    }
    if (!isPlainName(name)) {
      yield fail('file-name-refused', `${label} holds a name that is a path: ${JSON.stringify(name)}.`);
      continue;
    }
    const child = { side: from.side, path: posix.join(from.path || '.', name) };
    try {
      const status = await child.side.status(child.path);
      if (!status) yield fail('file-not-found', `${child.side.label(child.path)} leads nowhere.`);
      else yield* walk(child, status, { side: to.side, path: posix.join(to.path, name) }, [...above, real]);
    } catch (error) {
      if (!isFileFailure(error)) throw error;
      yield { do: 'fail', error: asFailure(error) };
    }
  }
  yield { do: 'leave', from, to, source };
}

const byName = (names: ListedName[]) => names.sort((one, other) => (one.shown < other.shown ? -1 : 1));

const skipUndecodable = (path: string): Step =>
  fail(
    'file-name-not-text',
    `${path} has a name that is not UTF-8; it was left out. Rename it, or use cde rsync.`,
  );

const fail = (code: string, message: string): Step => ({ do: 'fail', error: new Failure(code, message) });

/** Whether a failure concerns only one file. A lost connection concerns all of them. */
export function isFileFailure(error: unknown): boolean {
  if (error instanceof Failure) return error.code.startsWith('file-');
  return error instanceof Error && typeof (error as NodeJS.ErrnoException).errno === 'number';
}

export function asFailure(error: unknown): Failure {
  const failure = toFailure(error);
  if (failure.code.startsWith('file-')) return failure;
  const { message, detail, hint } = failure;
  return new Failure('file-failed', message, { detail, hint, cause: error });
}

/** Expands `*`, `?` and `[…]` in a workspace's path, like scp. A path that exists literally is not expanded. */
export async function expand(side: Side, pattern: string): Promise<string[]> {
  if (!/[*?[]/.test(pattern) || (await side.status(pattern))) return [pattern];
  let found = [pattern.startsWith('/') ? '/' : ''];
  for (const part of pattern.split('/').filter((segment) => segment !== '')) {
    const next: string[] = [];
    for (const folder of found) {
      if (!/[*?[]/.test(part)) {
        next.push(posix.join(folder, part));
        continue;
      }
      const names = await side.list(folder || '.').catch(() => [] as ListedName[]);
      // Hidden names only match a pattern with a leading dot, as in a shell.
      for (const { text: name } of byName(names))
        if (name !== null && isPlainName(name) && (part.startsWith('.') || !name.startsWith('.')))
          if (posix.matchesGlob(name, part)) next.push(posix.join(folder, name));
    }
    found = next;
  }
  return found;
}
