import type { Node } from '@cde/api/nodes.ts';
import { useInfiniteQuery } from '@tanstack/react-query';
import { Link, useNavigate, useSearch } from '@tanstack/react-router';
import { rowsOf } from '../paging.ts';
import { useTitle } from '../shell.tsx';
import { bytes } from '../ui/format.ts';
import { List } from '../ui/list.tsx';
import { Search } from '../ui/search.tsx';
import { Ago } from '../ui/time.tsx';
import { NodeState, ProfileState, share } from './node-state.tsx';
import { nodesQuery, refOf } from './queries.ts';
import '../workspaces/workspaces.css';

const lastDrift = ({ kernelProfiles }: Node) =>
  kernelProfiles
    .flatMap((profile) => profile.lastDrift?.at ?? [])
    .sort()
    .at(-1);

/** The machines that workspaces run on. */
export function NodesPage() {
  useTitle('Nodes');
  const filter = useSearch({ from: '/signed-in/nodes' });
  const navigate = useNavigate();
  const nodes = useInfiniteQuery(nodesQuery(filter));
  const unseen = nodes.data?.pages.at(-1)?.unseen ?? [];
  const isFiltered = filter.problems || filter.q !== undefined || filter.cluster !== undefined;
  return (
    <main id="main">
      <div className="page-head">
        <h1>Nodes</h1>
        <Search
          label="Search nodes by name"
          value={filter.q ?? ''}
          onChange={(q) =>
            navigate({ to: '/nodes', search: { ...filter, q: q || undefined }, replace: true })
          }
        />
        <label className="choice">
          <input
            type="checkbox"
            checked={filter.problems ?? false}
            onChange={({ target }) =>
              navigate({ to: '/nodes', search: { ...filter, problems: target.checked || undefined } })
            }
          />
          <span>Only with problems</span>
        </label>
        <p>
          The machines that workspaces run on, and the kernel profiles that noded maintains on them
          {filter.cluster !== undefined && (
            <>
              , of the cluster{' '}
              <Link to="/clusters/$cluster" params={{ cluster: filter.cluster }}>
                {filter.cluster}
              </Link>
            </>
          )}
          .
        </p>
      </div>
      {unseen.map(({ name, reason }) => (
        <p key={name} className="hint" role="status">
          The nodes of {name} may be missing or out of date: {reason}
        </p>
      ))}
      <List
        query={nodes}
        rows={rowsOf(nodes.data)}
        keyOf={refOf}
        empty={
          <>
            <strong>{isFiltered ? 'No nodes match' : 'No nodes yet'}</strong>
            <p>
              {isFiltered
                ? 'Change the search, or show all nodes.'
                : 'The nodes of your clusters appear here once the server is connected to them.'}
            </p>
            {isFiltered && (
              <Link className="button" to="/nodes">
                Show all nodes
              </Link>
            )}
          </>
        }
        columns={[
          {
            title: 'Name',
            is: 'name',
            cell: (node) => (
              <Link to="/nodes/$node" params={{ node: refOf(node) }}>
                <strong>{node.name}</strong>
              </Link>
            ),
          },
          {
            title: 'Cluster',
            cell: (node) => node.cluster ?? <span className="muted">{node.provider}</span>,
          },
          { title: 'Status', cell: (node) => <NodeState node={node} /> },
          { title: 'CPUs', className: 'nowrap', cell: (node) => share(node, 'cpus') },
          { title: 'Memory', className: 'nowrap', cell: (node) => share(node, 'memoryBytes', bytes) },
          { title: 'Workspaces', cell: (node) => node.workspaces },
          {
            title: 'Kernel profiles',
            className: 'cell-words',
            cell: (node) =>
              node.kernelProfiles.map((profile) => (
                <p key={profile.name}>
                  {profile.name} <ProfileState profile={profile} />
                </p>
              )),
          },
          {
            title: 'Last drift',
            cell: (node) => {
              const at = lastDrift(node);
              return at && <Ago at={at} />;
            },
          },
        ]}
      />
    </main>
  );
}
