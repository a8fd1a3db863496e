import { type AuditRow, listAudit } from '@cde/api/identity.ts';
import { keepPreviousData, useInfiniteQuery } from '@tanstack/react-query';
import { useNavigate, useSearch } from '@tanstack/react-router';
import { type FormEvent, useState } from 'react';
import { call } from '../client.ts';
import { pagedQuery, rowsOf } from '../paging.ts';
import { useTitle } from '../shell.tsx';
import { moment } from '../ui/format.ts';
import { Icon } from '../ui/icons.tsx';
import { List } from '../ui/list.tsx';

/** Converts the value of a datetime-local input, in the reader's time zone, to what the API expects. */
const toUtc = (local: string) => (local ? new Date(local).toISOString() : undefined);

/** Converts a timestamp to the value of a datetime-local input. */
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
    ...pagedQuery(['audit', filter], (page, signal) =>
      call(listAudit, { query: { ...page, ...filter }, signal }),
    ),
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
        <List
          query={list}
          rows={rowsOf(list.data)}
          keyOf={(row) => row.id}
          columns={[
            { title: 'When', is: 'name', className: 'nowrap muted', cell: (row) => moment(row.at) },
            { title: 'Who', cell: (row) => row.actor },
            { title: 'Action', cell: (row) => <code>{row.action}</code> },
            {
              title: 'Target',
              cell: (row) => (
                <>
                  {row.targetName || row.targetId} <span className="muted">{row.targetType}</span>
                </>
              ),
            },
            { title: 'From', className: 'muted', cell: (row) => row.ip },
            {
              title: 'Details',
              is: 'actions',
              cell: (row) => (
                <button
                  type="button"
                  className="button small quiet"
                  aria-expanded={open === row.id}
                  onClick={() => setOpen(open === row.id ? null : row.id)}
                >
                  Details <Icon name="chevron" />
                </button>
              ),
            },
          ]}
          empty={<strong>No audit entries match</strong>}
          below={(row) => open === row.id && <Details row={row} />}
        />
      </div>
    </main>
  );
}

function Details({ row }: { row: AuditRow }) {
  return (
    <>
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
    </>
  );
}

const pretty = (value: unknown) =>
  value === null || value === undefined ? 'nothing' : JSON.stringify(value, null, 2);
