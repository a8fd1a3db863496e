import { Problem } from '@cde/api/problem.ts';

/** The opaque `next` of a page of a list ordered by a unique text key. */
const toCursor = (key: string): string => Buffer.from(key).toString('base64url');

/** The key in a cursor. Throws `bad-request` if `valid` rejects it. */
export function fromCursor(cursor: string, valid: (key: string) => boolean): string {
  const key = Buffer.from(cursor, 'base64url').toString();
  if (!valid(key))
    throw new Problem('bad-request', "The query's `after` is not a `next` of this list.", {
      hint: 'Pass the `next` of the previous page unchanged, or omit `after`.',
    });
  return key;
}

/**
 * Makes a page of `rows`, which were queried with a limit of `limit + 1`. `key` returns the unique text that the list is
 * ordered by.
 */
export function toPage<Row, Item>(
  rows: Row[],
  limit: number,
  key: (row: Row) => string,
  item: (row: Row) => Item,
): { items: Item[]; next: string | null } {
  const items = rows.slice(0, limit);
  const last = items.at(-1);
  return {
    items: items.map(item),
    next: rows.length > limit && last !== undefined ? toCursor(key(last)) : null,
  };
}

/** Escapes the wildcards of LIKE. */
export const escapeLike = (text: string): string => text.replace(/[\\%_]/g, '\\$&');

export const isUuid = (text: string): boolean =>
  /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i.test(text);
