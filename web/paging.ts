import { infiniteQueryOptions, type QueryKey } from '@tanstack/react-query';

const rowsAtOnce = 100;

/** A list that is fetched page by page on demand. `ask` receives the query of a page. */
export const pagedQuery = <T, Key extends QueryKey>(
  queryKey: Key,
  ask: (
    page: { limit: number; after?: string },
    signal: AbortSignal,
  ) => Promise<{ items: T[]; next: string | null }>,
) =>
  infiniteQueryOptions({
    queryKey,
    queryFn: ({ pageParam, signal }) =>
      ask({ limit: rowsAtOnce, ...(pageParam && { after: pageParam }) }, signal),
    initialPageParam: '',
    getNextPageParam: (page) => page.next,
  });

/** The rows of all pages that were fetched. */
export const rowsOf = <T>(data: { pages: { items: T[] }[] } | undefined): T[] =>
  data?.pages.flatMap((page) => page.items) ?? [];
