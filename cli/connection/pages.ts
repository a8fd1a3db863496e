/** The server's maximum page size. */
const pageSize = 1_000;

/** Reads a list page by page until its end, or until `limit` items. */
export async function readAll<T>(
  page: (query: { limit: number; after?: string }) => Promise<{ items: T[]; next: string | null }>,
  limit = Number.POSITIVE_INFINITY,
): Promise<T[]> {
  const items: T[] = [];
  let after: string | undefined;
  while (items.length < limit) {
    const reply = await page({
      limit: Math.min(pageSize, limit - items.length),
      ...(after !== undefined && { after }),
    });
    items.push(...reply.items);
    if (reply.next === null) break;
    after = reply.next;
  }
  return items;
}
