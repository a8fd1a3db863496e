import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useRef, useState } from 'react';
import { managesClusters, useMe } from '../me.ts';
import { useTitle } from '../shell.tsx';
import { Icon } from '../ui/icons.tsx';
import { List } from '../ui/list.tsx';
import { ClusterForm } from './cluster-form.tsx';
import { ClusterState, WhyUnreachable } from './cluster-state.tsx';
import { Orphans } from './orphans.tsx';
import { allOrphansQuery, clustersQuery } from './queries.ts';
import '../workspaces/workspaces.css';

/** The Kubernetes clusters that workspaces run on. */
export function ClustersPage() {
  useTitle('Clusters');
  const manages = managesClusters(useMe().role);
  const clusters = useQuery(clustersQuery);
  const [adding, setAdding] = useState(false);
  const addButton = manages && (
    <button type="button" className="button primary" onClick={() => setAdding(true)}>
      <Icon name="plus" /> Add a cluster
    </button>
  );
  const isEmpty = clusters.data?.length === 0;
  return (
    <main id="main">
      <div className="page-head">
        <h1>Clusters</h1>
        {!isEmpty && <div className="end">{addButton}</div>}
        <p>Where workspaces of templates with the provider kubernetes run, a namespace for each.</p>
      </div>
      <div className="stack">
        <List
          query={clusters}
          rows={clusters.data ?? []}
          keyOf={(cluster) => cluster.id}
          empty={
            <>
              <strong>No clusters yet</strong>
              <p>
                {manages
                  ? 'Add one with its kubeconfig; then templates with the provider kubernetes can be used.'
                  : 'An owner of this installation adds them. Until then, workspaces run on the server’s own machine.'}
              </p>
              {addButton}
            </>
          }
          columns={[
            {
              title: 'Name',
              is: 'name',
              cell: (cluster) => (
                <>
                  <Link to="/clusters/$cluster" params={{ cluster: cluster.name }}>
                    <strong>{cluster.name}</strong>
                  </Link>{' '}
                  {cluster.isDefault && <span className="chip">default</span>}
                </>
              ),
            },
            { title: 'Region', cell: (cluster) => cluster.region },
            {
              title: 'Status',
              className: 'cell-words',
              cell: (cluster) => (
                <>
                  <ClusterState cluster={cluster} />
                  {cluster.state === 'away' && (
                    <p className="hint">
                      <WhyUnreachable cluster={cluster} />
                    </p>
                  )}
                </>
              ),
            },
            { title: 'Version', className: 'nowrap', cell: (cluster) => cluster.version },
            { title: 'Workspaces', cell: (cluster) => cluster.workspaces },
          ]}
        />
        <OtherOrphans />
      </div>
      {adding && <ClusterForm onClose={() => setAdding(false)} />}
    </main>
  );
}

/** The orphans of providers that have no page: Docker, the server's own machine. */
function OtherOrphans() {
  const found = useQuery(allOrphansQuery);
  // A panel stays when its last orphan is gone: its dialog says what was done.
  const providers = useRef(new Set<string>()).current;
  for (const { cluster, provider } of found.data?.items ?? []) if (cluster === null) providers.add(provider);
  return [...providers].sort().map((provider) => <Orphans key={provider} place={{ provider }} />);
}
