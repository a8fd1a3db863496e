import { listUsers } from '@cde/api/identity.ts';
import type { Workspace } from '@cde/api/workspaces.ts';
import { keepPreviousData, useInfiniteQuery, useQuery } from '@tanstack/react-query';
import { Link, useNavigate, useSearch } from '@tanstack/react-router';
import { useEffect, useRef, useState } from 'react';
import { callAll } from '../client.ts';
import { usePolling, useTopic } from '../live/live.ts';
import { connects, seesAllWorkspaces, seesUsers, useMe } from '../me.ts';
import { useTitle } from '../shell.tsx';
import { Icon, Spinner } from '../ui/icons.tsx';
import { Problem } from '../ui/problem.tsx';
import { Ago } from '../ui/time.tsx';
import { Actions } from './actions.tsx';
import { workspacesQuery } from './queries.ts';
import { Status } from './status.tsx';
import './workspaces.css';

// Between two key strokes of a fast typist: a search starts when the typing pauses.
const typingPauseMs = 180;

export function ListPage() {
  useTitle('Workspaces');
  const me = useMe();
  const navigate = useNavigate();
  const search = useSearch({ from: '/signed-in/workspaces' });
  const all = seesAllWorkspaces(me.role);
  const owner = all ? (search.owner ?? 'me') : 'me';
  const list = useInfiniteQuery({
    ...workspacesQuery({ search: search.q ?? '', owner: owner === 'all' ? '' : owner }),
    placeholderData: keepPreviousData,
    refetchInterval: usePolling(),
  });
  useTopic('workspaces');

  const rows = list.data?.pages.flatMap((page) => page.items) ?? [];
  const showOwner = owner !== 'me';
  const filtered = search.q !== undefined || (all && owner !== 'me');
  return (
    <main id="main">
      <div className="page-head">
        <h1>Workspaces</h1>
        <Search
          value={search.q ?? ''}
          onChange={(q) =>
            navigate({ to: '/workspaces', search: { ...search, q: q || undefined }, replace: true })
          }
        />
        {all && (
          <OwnerFilter
            value={owner}
            onChange={(next) =>
              navigate({ to: '/workspaces', search: { ...search, owner: next === 'me' ? undefined : next } })
            }
          />
        )}
        <div className="end">
          <Link className="button primary" to="/workspaces/new">
            <Icon name="plus" /> New workspace
          </Link>
        </div>
      </div>
      <Problem error={list.error} retry={() => list.refetch()} />
      {list.isPending && !list.error && (
        <p className="row muted" role="status">
          <Spinner /> Loading…
        </p>
      )}
      {list.data && rows.length === 0 && (
        <div className="panel empty">
          {filtered ? (
            <>
              <strong>No workspace matches</strong>
              <Link className="button" to="/workspaces">
                Clear the filters
              </Link>
            </>
          ) : (
            <>
              <strong>No workspaces yet</strong>
              <p>A workspace is your own environment, made from a template. Its home outlasts every stop.</p>
              <Link className="button primary" to="/workspaces/new">
                <Icon name="plus" /> Create your first workspace
              </Link>
            </>
          )}
        </div>
      )}
      {rows.length > 0 && (
        <div className="panel workspace-list" aria-busy={list.isPlaceholderData}>
          <table>
            <thead>
              <tr>
                <th scope="col">Name</th>
                <th scope="col">Status</th>
                <th scope="col">Template</th>
                <th scope="col">Last build</th>
                <th scope="col">
                  <span className="hidden">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {rows.map((workspace) => (
                <Row key={workspace.id} workspace={workspace} showOwner={showOwner} />
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
            {list.isFetchingNextPage ? 'Loading…' : 'Show more'}
          </button>
        </p>
      )}
    </main>
  );
}

function Row({ workspace, showOwner }: { workspace: Workspace; showOwner: boolean }) {
  const me = useMe();
  const params = { owner: workspace.owner, name: workspace.name };
  const build = workspace.latestBuild;
  return (
    <tr>
      <th scope="row" className="cell-name">
        <Link to="/workspaces/$owner/$name" params={params}>
          {showOwner && <span className="owner">{workspace.owner}/</span>}
          {workspace.name}
        </Link>
      </th>
      <td className="cell-status">
        <Status workspace={workspace} />
        {workspace.reason && (
          <p className="reason" title={workspace.reason}>
            {workspace.reason}
          </p>
        )}
      </td>
      <td className="cell-template">
        {workspace.template} <span className="muted">v{workspace.templateVersion}</span>{' '}
        {workspace.outdated && (
          <span className="chip warn" title={`Version ${workspace.activeTemplateVersion} is active`}>
            update available
          </span>
        )}
      </td>
      <td className="cell-build muted nowrap">{build && <Ago at={build.createdAt} />}</td>
      <td className="actions">
        <div className="row">
          {workspace.status === 'running' && connects(me, workspace.owner) && (
            <Link
              className="button small"
              to="/workspaces/$owner/$name/terminal"
              params={params}
              aria-label={`Terminal in ${workspace.name}`}
            >
              <Icon name="terminal" /> Terminal
            </Link>
          )}
          <Actions workspace={workspace} compact />
        </div>
      </td>
    </tr>
  );
}

function Search({ value, onChange }: { value: string; onChange: (value: string) => void }) {
  const [text, setText] = useState(value);
  const input = useRef<HTMLInputElement>(null);
  const latest = useRef(onChange);
  latest.current = onChange;
  useEffect(() => setText(value), [value]);
  useEffect(() => {
    if (text.trim() === value) return;
    const timer = setTimeout(() => latest.current(text.trim()), typingPauseMs);
    return () => clearTimeout(timer);
  }, [text, value]);
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      const at = event.target as HTMLElement;
      if (
        event.key !== '/' ||
        event.ctrlKey ||
        event.metaKey ||
        at.closest('input, textarea, select, dialog')
      )
        return;
      event.preventDefault();
      input.current?.focus();
    };
    document.addEventListener('keydown', onKey);
    return () => document.removeEventListener('keydown', onKey);
  }, []);
  return (
    <search className="search">
      <Icon name="search" />
      <input
        ref={input}
        type="text"
        aria-label="Search workspaces"
        aria-keyshortcuts="/"
        placeholder="Search"
        value={text}
        spellCheck={false}
        onChange={(event) => setText(event.target.value)}
      />
      <span className="key" aria-hidden="true">
        /
      </span>
    </search>
  );
}

/** Whose workspaces; names come from the user list where the role may read it. */
function OwnerFilter({ value, onChange }: { value: string; onChange: (owner: string) => void }) {
  const me = useMe();
  const users = useQuery({
    queryKey: ['usernames'],
    queryFn: async ({ signal }) => (await callAll(listUsers, { signal })).map((user) => user.username),
    enabled: seesUsers(me.role),
    staleTime: 60_000,
  });
  const others = (users.data ?? []).filter((name) => name !== me.username).sort();
  if (value !== 'me' && value !== 'all' && !others.includes(value)) others.unshift(value);
  return (
    <select
      className="owner-filter"
      aria-label="Whose workspaces"
      value={value}
      onChange={(event) => onChange(event.target.value)}
    >
      <option value="me">Mine</option>
      <option value="all">Everyone's</option>
      {others.map((name) => (
        <option key={name} value={name}>
          {name}
        </option>
      ))}
    </select>
  );
}
