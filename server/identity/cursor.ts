import { Problem } from '@cde/api/problem.ts';

/** The opaque `next` of a page that is ordered by one unique text. */
export const toCursor = (key: string): string => Buffer.from(key).toString('base64url');

/** The key that a cursor holds; throws `bad-request` when `valid` does not take it. */
export function fromCursor(cursor: string, valid: (key: string) => boolean): string {
  const key = Buffer.from(cursor, 'base64url').toString();
  if (!valid(key))
    throw new Problem('bad-request', "The query's `after` is not a `next` of this list.", {
      hint: 'Pass `next` of the page before, unchanged, or leave `after` out.',
    });
  return key;
}

/**
 * Cuts `rows`, of which one more than `limit` was asked for, to a page.
 * `key`: the unique text that the list is ordered by.
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

/** `text` for LIKE, its own wildcards taken as themselves. */
export const escapeLike = (text: string): string => text.replace(/[\\%_]/g, '\\$&');

export const isUuid = (text: string): boolean =>
  /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i.test(text);
