import { Fragment, type ReactNode } from 'react';
import { Spinner } from './icons.tsx';
import { Problem } from './problem.tsx';

export interface Column<T> {
  title: string;
  cell: (row: T) => ReactNode;
  /** `name`: the row's header. `actions`: its buttons, whose title is only for screen readers. */
  is?: 'name' | 'actions';
  className?: string;
}

/** The part of a query that is used here, paged or not. */
export interface Listed {
  error: Error | null;
  isPending: boolean;
  isPlaceholderData?: boolean;
  refetch: () => unknown;
  hasNextPage?: boolean;
  isFetchingNextPage?: boolean;
  fetchNextPage?: () => unknown;
}

/**
 * The rows of a query as a table, with its error, loading and empty states and a button for the next page. On a narrow
 * screen each row is a card.
 */
export function List<T>({
  query,
  rows,
  columns,
  keyOf,
  empty,
  below,
  className = 'cards-when-narrow',
}: {
  query: Listed;
  rows: T[];
  columns: Column<T>[];
  keyOf: (row: T) => string;
  /** Shown in place of the table when there are no rows. */
  empty: ReactNode;
  /** Content to expand below a row; null for none. */
  below?: (row: T) => ReactNode;
  className?: string;
}) {
  return (
    <>
      <Problem error={query.error} retry={() => query.refetch()} />
      {query.isPending && !query.error && (
        <p className="row muted" role="status">
          <Spinner /> Loading…
        </p>
      )}
      {!query.isPending && !query.error && rows.length === 0 && <div className="panel empty">{empty}</div>}
      {rows.length > 0 && (
        <div className={`panel list ${className}`} aria-busy={query.isPlaceholderData}>
          <table>
            <thead>
              <tr>
                {columns.map(({ title, is }) => (
                  <th scope="col" key={title}>
                    {is === 'actions' ? <span className="hidden">{title}</span> : title}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {rows.map((row) => {
                const opened = below?.(row);
                return (
                  <Fragment key={keyOf(row)}>
                    <tr>
                      {columns.map((column) => (
                        <Cell key={column.title} column={column} row={row} />
                      ))}
                    </tr>
                    {opened && (
                      <tr className="below">
                        <td colSpan={columns.length}>{opened}</td>
                      </tr>
                    )}
                  </Fragment>
                );
              })}
            </tbody>
          </table>
        </div>
      )}
      {query.hasNextPage && (
        <p className="more">
          <button
            type="button"
            className="button"
            disabled={query.isFetchingNextPage}
            onClick={() => query.fetchNextPage?.()}
          >
            {query.isFetchingNextPage ? 'Loading…' : 'Show more'}
          </button>
        </p>
      )}
    </>
  );
}

function Cell<T>({ column: { title, cell, is, className }, row }: { column: Column<T>; row: T }) {
  if (is === 'name')
    return (
      <th scope="row" className={className}>
        {cell(row)}
      </th>
    );
  if (is === 'actions') return <td className="actions">{cell(row)}</td>;
  return (
    <td className={className} data-title={title}>
      {cell(row)}
    </td>
  );
}
