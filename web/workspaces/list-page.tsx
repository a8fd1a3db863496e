import type { User } from '@cde/api/identity.ts';
import { deletionText, shortDeletionText } from '@cde/api/idle-text.ts';
import type { Workspace } from '@cde/api/workspaces.ts';
import { keepPreviousData, useInfiniteQuery } from '@tanstack/react-query';
import { Link, useNavigate, useSearch } from '@tanstack/react-router';
import { Stops } from '../idle/stops.tsx';
import { usePolling, useTopic } from '../live/live.ts';
import { connects, seesAllWorkspaces, useMe } from '../me.ts';
import { rowsOf } from '../paging.ts';
import { useTitle } from '../shell.tsx';
import { Icon } from '../ui/icons.tsx';
import { type Column, List } from '../ui/list.tsx';
import { Search } from '../ui/search.tsx';
import { Ago, useNow } from '../ui/time.tsx';
import { Actions } from './actions.tsx';
import { OwnerFilter } from './owner-filter.tsx';
import { workspacesQuery } from './queries.ts';
import { Status } from './status.tsx';
import './workspaces.css';

export function ListPage() {
  useTitle('Workspaces');
  const me = useMe();
  const navigate = useNavigate();
  const search = useSearch({ from: '/signed-in/workspaces' });
  const all = seesAllWorkspaces(me.role);
  const owner = all ? (search.owner ?? 'me') : 'me';
  const list = useInfiniteQuery({
    ...workspacesQuery({
      search: search.q ?? '',
      owner: owner === 'all' ? '' : owner,
      archived: search.archived === true,
    }),
    placeholderData: keepPreviousData,
    refetchInterval: usePolling(),
  });
  useTopic('workspaces');

  const filtered = search.archived === true || search.q !== undefined || (all && owner !== 'me');
  return (
    <main id="main">
      <div className="page-head">
        <h1>Workspaces</h1>
        <Search
          label="Search workspaces"
          value={search.q ?? ''}
          onChange={(q) =>
            navigate({ to: '/workspaces', search: { ...search, q: q || undefined }, replace: true })
          }
        />
        {all && (
          <OwnerFilter
            label="Whose workspaces"
            value={owner}
            onChange={(next) =>
              navigate({ to: '/workspaces', search: { ...search, owner: next === 'me' ? undefined : next } })
            }
          />
        )}
        <select
          className="owner-filter"
          aria-label="Which workspaces"
          value={search.archived ? 'archived' : 'current'}
          onChange={({ target }) =>
            navigate({
              to: '/workspaces',
              search: { ...search, archived: target.value === 'archived' || undefined },
            })
          }
        >
          <option value="current">Current</option>
          <option value="archived">Archived</option>
        </select>
        <div className="end">
          <Link className="button primary" to="/workspaces/new">
            <Icon name="plus" /> New workspace
          </Link>
        </div>
      </div>
      <List
        query={list}
        rows={rowsOf(list.data)}
        keyOf={(workspace) => workspace.id}
        className="workspace-list"
        columns={columns(me, owner !== 'me')}
        empty={
          search.archived === true && search.q === undefined ? (
            <>
              <strong>No archived workspaces</strong>
              <p>
                Workspaces that no person has used for a long time appear here if their policy archives them.
              </p>
              <Link className="button" to="/workspaces" search={{ ...search, archived: undefined }}>
                Show current workspaces
              </Link>
            </>
          ) : filtered ? (
            <>
              <strong>No workspaces match</strong>
              <Link className="button" to="/workspaces">
                Clear filters
              </Link>
            </>
          ) : (
            <>
              <strong>No workspaces yet</strong>
              <p>A workspace is your own development environment, created from a template.</p>
              <Link className="button primary" to="/workspaces/new">
                <Icon name="plus" /> Create your first workspace
              </Link>
            </>
          )
        }
      />
    </main>
  );
}

/** When an announced deletion happens; what prevents it on hover. */
function Deletes({ at }: { at: string }) {
  const now = useNow(60_000);
  return (
    <p className="reason stops-soon" title={deletionText(at, now)}>
      {shortDeletionText(at, now)}
    </p>
  );
}

const placeOf = ({ owner, name }: Workspace) => ({ owner, name });

const columns = (me: User, showOwner: boolean): Column<Workspace>[] => [
  {
    title: 'Name',
    is: 'name',
    className: 'cell-name',
    cell: (workspace) => (
      <Link to="/workspaces/$owner/$name" params={placeOf(workspace)}>
        {showOwner && <span className="owner">{workspace.owner}/</span>}
        {workspace.name}
      </Link>
    ),
  },
  {
    title: 'Status',
    className: 'cell-status',
    cell: (workspace) => (
      <>
        <Status workspace={workspace} />
        {workspace.deletesAt && <Deletes at={workspace.deletesAt} />}
        {workspace.reason && !workspace.deletesAt && (
          <p className="reason" title={workspace.reason}>
            {workspace.reason}
          </p>
        )}
      </>
    ),
  },
  {
    title: 'Stops',
    className: 'cell-stops nowrap',
    cell: (workspace) => workspace.idle && <Stops idle={workspace.idle} />,
  },
  {
    title: 'Template',
    className: 'cell-template',
    cell: (workspace) => (
      <>
        {workspace.template} <span className="muted">v{workspace.templateVersion}</span>{' '}
        {workspace.outdated && (
          <span className="chip warn" title={`Version ${workspace.activeTemplateVersion} is active`}>
            update available
          </span>
        )}
      </>
    ),
  },
  {
    title: 'Last build',
    className: 'cell-build muted nowrap',
    cell: ({ latestBuild }) => latestBuild && <Ago at={latestBuild.createdAt} />,
  },
  {
    title: 'Actions',
    is: 'actions',
    cell: (workspace) => (
      <div className="row">
        {workspace.status === 'running' && connects(me, workspace.owner) && (
          <Link
            className="button small"
            to="/workspaces/$owner/$name/terminal"
            params={placeOf(workspace)}
            aria-label={`Terminal in ${workspace.name}`}
          >
            <Icon name="terminal" /> Terminal
          </Link>
        )}
        <Actions workspace={workspace} compact />
      </div>
    ),
  },
];
