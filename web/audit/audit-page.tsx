import { type AuditRow, listAudit } from '@cde/api/identity.ts';
import { keepPreviousData, useInfiniteQuery } from '@tanstack/react-query';
import { useNavigate, useSearch } from '@tanstack/react-router';
import { type FormEvent, Fragment, useState } from 'react';
import { call } from '../client.ts';
import { useTitle } from '../shell.tsx';
import { moment } from '../ui/format.ts';
import { Icon } from '../ui/icons.tsx';
import { Problem } from '../ui/problem.tsx';

/** `2026-02-03T04:05` of a datetime-local control, in the reader's zone, as the API wants it. */
const toUtc = (local: string) => (local ? new Date(local).toISOString() : undefined);

/** A moment as a datetime-local control shows it. */
function toLocal(iso: string | undefined): string {
  if (!iso || Number.isNaN(Date.parse(iso))) return '';
  const date = new Date(iso);
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

export function AuditPage() {
  useTitle('Audit log');
  const filter = useSearch({ from: '/signed-in/audit' });
  const navigate = useNavigate();
  const [open, setOpen] = useState<string | null>(null);
  const list = useInfiniteQuery({
    queryKey: ['audit', filter],
    queryFn: ({ pageParam, signal }) =>
      call(listAudit, { query: { limit: 100, ...filter, ...(pageParam && { after: pageParam }) }, signal }),
    initialPageParam: '',
    getNextPageParam: (page) => page.next,
    placeholderData: keepPreviousData,
  });
  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const data = new FormData(event.currentTarget);
    const text = (name: string) => String(data.get(name)).trim() || undefined;
    void navigate({
      to: '/audit',
      search: {
        actor: text('actor'),
        action: text('action'),
        target: text('target'),
        since: toUtc(text('since') ?? ''),
        until: toUtc(text('until') ?? ''),
      },
    });
  }
  const rows = list.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <main id="main">
      <div className="page-head">
        <h1>Audit log</h1>
      </div>
      <div className="stack">
        <form className="filters" onSubmit={submit} key={JSON.stringify(filter)} aria-label="Filters">
          <label>
            Who
            <input name="actor" defaultValue={filter.actor} placeholder="username" spellCheck={false} />
          </label>
          <label>
            Action
            <input
              name="action"
              defaultValue={filter.action}
              placeholder="workspace.create"
              spellCheck={false}
            />
          </label>
          <label>
            Target
            <input name="target" defaultValue={filter.target} placeholder="name or id" spellCheck={false} />
          </label>
          <label>
            Since
            <input name="since" type="datetime-local" defaultValue={toLocal(filter.since)} />
          </label>
          <label>
            Until
            <input name="until" type="datetime-local" defaultValue={toLocal(filter.until)} />
          </label>
          <button type="submit" className="button">
            Filter
          </button>
        </form>
        <Problem error={list.error} retry={() => list.refetch()} />
        {list.data && rows.length === 0 && (
          <div className="panel empty">
            <strong>Nothing matches</strong>
          </div>
        )}
        {rows.length > 0 && (
          <div className="panel table-scroll">
            <table className="audit-table">
              <thead>
                <tr>
                  <th scope="col">When</th>
                  <th scope="col">Who</th>
                  <th scope="col">Action</th>
                  <th scope="col">Target</th>
                  <th scope="col">From</th>
                  <th scope="col">
                    <span className="hidden">Details</span>
                  </th>
                </tr>
              </thead>
              <tbody>
                {rows.map((row) => (
                  <Fragment key={row.id}>
                    <tr>
                      <td className="nowrap muted">{moment(row.at)}</td>
                      <td>{row.actor}</td>
                      <td>
                        <code>{row.action}</code>
                      </td>
                      <td>
                        {row.targetName || row.targetId} <span className="muted">{row.targetType}</span>
                      </td>
                      <td className="muted">{row.ip ?? ''}</td>
                      <td className="actions">
                        <button
                          type="button"
                          className="button small quiet"
                          aria-expanded={open === row.id}
                          onClick={() => setOpen(open === row.id ? null : row.id)}
                        >
                          Details <Icon name="chevron" />
                        </button>
                      </td>
                    </tr>
                    {open === row.id && <Details row={row} />}
                  </Fragment>
                ))}
              </tbody>
            </table>
          </div>
        )}
        {list.hasNextPage && (
          <p className="more">
            <button
              type="button"
              className="button"
              disabled={list.isFetchingNextPage}
              onClick={() => list.fetchNextPage()}
            >
              Show more
            </button>
          </p>
        )}
      </div>
    </main>
  );
}

function Details({ row }: { row: AuditRow }) {
  return (
    <tr className="audit-details">
      <td colSpan={6}>
        <div className="before-after">
          <div>
            <h3>Before</h3>
            <pre>{pretty(row.before)}</pre>
          </div>
          <div>
            <h3>After</h3>
            <pre>{pretty(row.after)}</pre>
          </div>
        </div>
        <p className="hint">
          Request {row.requestId}, target {row.targetId}
        </p>
      </td>
    </tr>
  );
}

const pretty = (value: unknown) =>
  value === null || value === undefined ? 'nothing' : JSON.stringify(value, null, 2);
