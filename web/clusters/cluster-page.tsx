import { type Cluster, type ClusterCheck, removeCluster, updateCluster } from '@cde/api/clusters.ts';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { Link, useNavigate, useParams } from '@tanstack/react-router';
import { useState } from 'react';
import { call } from '../client.ts';
import { managesClusters, useMe } from '../me.ts';
import { useTitle } from '../shell.tsx';
import { ConfirmDialog } from '../ui/confirm.tsx';
import { Icon, Spinner } from '../ui/icons.tsx';
import { Problem } from '../ui/problem.tsx';
import { Ago } from '../ui/time.tsx';
import { sayDone, sayFailed } from '../ui/toast.tsx';
import { ClusterForm } from './cluster-form.tsx';
import { ClusterState, WhyUnreachable } from './cluster-state.tsx';
import { Orphans } from './orphans.tsx';
import { checksQuery, clustersQuery } from './queries.ts';
import '../workspaces/workspaces.css';

/** One cluster: its checks, orphans and settings. */
export function ClusterPage() {
  const { cluster: name } = useParams({ from: '/signed-in/clusters/$cluster' });
  useTitle(name);
  const clusters = useQuery(clustersQuery);
  const cluster = clusters.data?.find((one) => one.name === name);
  if (clusters.data && !cluster)
    return (
      <main id="main" className="empty">
        <strong>There is no cluster {name}</strong>
        <p>It may have been removed.</p>
        <Link className="button" to="/clusters">
          Go to the clusters
        </Link>
      </main>
    );
  return (
    <main id="main">
      <div className="page-head">
        <h1 className="crumbs">
          <span>
            <span className="owner">
              <Link to="/clusters">Clusters</Link> /{' '}
            </span>
            {name}
          </span>
        </h1>
        {cluster && <ClusterState cluster={cluster} />}
        {cluster?.isDefault && <span className="chip">default</span>}
        {cluster && <Actions cluster={cluster} />}
        {cluster?.state === 'away' && (
          <p>
            <WhyUnreachable cluster={cluster} /> Its workspaces keep their status, and builds wait until it is
            reachable.
          </p>
        )}
      </div>
      {cluster ? (
        <div className="workspace-columns">
          <div className="stack">
            <Checks cluster={cluster} />
            <Orphans place={{ cluster: cluster.name }} state={cluster.state} />
          </div>
          <Details cluster={cluster} />
        </div>
      ) : clusters.error ? (
        <Problem error={clusters.error} retry={() => clusters.refetch()} />
      ) : (
        <p className="row muted" role="status">
          <Spinner /> Loading…
        </p>
      )}
    </main>
  );
}

function Actions({ cluster }: { cluster: Cluster }) {
  const manages = managesClusters(useMe().role);
  const navigate = useNavigate();
  const client = useQueryClient();
  const [dialog, setDialog] = useState<'change' | 'remove' | null>(null);
  const makeDefault = useMutation({
    mutationFn: () => call(updateCluster, { params: { cluster: cluster.id }, body: { isDefault: true } }),
    onSuccess: () => {
      sayDone(`${cluster.name} is the default.`);
      return client.invalidateQueries({ queryKey: ['clusters'] });
    },
    onError: (error) => sayFailed(`Could not make ${cluster.name} the default.`, error),
  });
  if (!manages) return null;
  async function remove() {
    await call(removeCluster, { params: { cluster: cluster.id } });
    sayDone(`${cluster.name} was removed; nothing on it was deleted.`);
    await navigate({ to: '/clusters' });
    await client.invalidateQueries({ queryKey: ['clusters'] });
  }
  return (
    <div className="end">
      {!cluster.isDefault && (
        <button
          type="button"
          className="button"
          disabled={makeDefault.isPending}
          onClick={() => makeDefault.mutate()}
        >
          Make it the default
        </button>
      )}
      <button type="button" className="button" onClick={() => setDialog('change')}>
        Change…
      </button>
      <button type="button" className="button danger" onClick={() => setDialog('remove')}>
        Remove…
      </button>
      {dialog === 'change' && <ClusterForm cluster={cluster} onClose={() => setDialog(null)} />}
      {dialog === 'remove' && (
        <ConfirmDialog
          title={`Remove ${cluster.name}`}
          keep="Keep it"
          confirm="Remove"
          act={remove}
          onClose={() => setDialog(null)}
        >
          This removes the cluster and its credentials from the server and deletes nothing on the cluster. A
          cluster that still has workspaces or retained homes cannot be removed.
        </ConfirmDialog>
      )}
    </div>
  );
}

const checkWords: Record<string, string> = {
  connection: 'Connection',
  permissions: 'Permissions',
  storage: 'Storage',
  nodes: 'Nodes',
  snapshots: 'Snapshots',
};

/** What workspaces need from the cluster. */
function Checks({ cluster }: { cluster: Cluster }) {
  const checks = useQuery(checksQuery(cluster.name, cluster.state));
  const missing = checks.data?.filter(({ ok }) => !ok).length ?? 0;
  return (
    <section className="panel" aria-labelledby="checks-title">
      <header>
        <h2 id="checks-title">What workspaces need</h2>
        {checks.data && (
          <span className={`status ${missing === 0 ? 'good' : 'bad'}`}>
            {missing === 0 ? 'complete' : `${missing} missing`}
          </span>
        )}
        <button
          type="button"
          className="end button small"
          disabled={checks.isFetching}
          onClick={() => checks.refetch()}
        >
          {checks.isFetching ? 'Asking…' : 'Check again'}
        </button>
      </header>
      <div className="body">
        <Problem error={checks.error} />
        {checks.isPending && !checks.error && (
          <p className="row muted" role="status">
            <Spinner /> Checking the cluster…
          </p>
        )}
        <ul className="checks">
          {checks.data?.map((check) => (
            <Check key={check.name} check={check} />
          ))}
        </ul>
      </div>
    </section>
  );
}

const sentence = (text: string) => `${text.charAt(0).toUpperCase()}${text.slice(1).replace(/\.?$/, '.')}`;

function Check({ check }: { check: ClusterCheck }) {
  return (
    <li className={check.ok ? 'check good' : 'check bad'}>
      <Icon name={check.ok ? 'check' : 'warning'} />
      <div>
        <strong>{checkWords[check.name] ?? sentence(check.name)}</strong>
        <span className="hidden">{check.ok ? ', ok: ' : ', missing: '}</span>
        <p>{sentence(check.message)}</p>
        {check.hint && <p className="hint">{check.hint}</p>}
      </div>
    </li>
  );
}

function Details({ cluster }: { cluster: Cluster }) {
  const labels = Object.entries(cluster.labels);
  return (
    <section className="panel" aria-labelledby="details-title">
      <header>
        <h2 id="details-title">Details</h2>
      </header>
      <div className="body">
        <dl className="facts">
          <dt>Region</dt>
          <dd>{cluster.region || <span className="muted">none</span>}</dd>
          <dt>Labels</dt>
          <dd>
            {labels.length === 0 && <span className="muted">none</span>}
            {labels.map(([name, value]) => (
              <span key={name} className="chip">
                {name}={value}
              </span>
            ))}
          </dd>
          <dt>Version</dt>
          <dd>{cluster.version ?? <span className="muted">not known yet</span>}</dd>
          <dt>API server</dt>
          <dd>
            {cluster.endpoint ? <code>{cluster.endpoint}</code> : <span className="muted">unknown</span>}
          </dd>
          {cluster.publicEndpoint && (
            <>
              <dt>For developers</dt>
              <dd>
                <code>{cluster.publicEndpoint}</code>
              </dd>
            </>
          )}
          <dt>Credentials</dt>
          <dd>
            {cluster.credentials === 'in-cluster'
              ? "the service account of the server's pod"
              : 'a kubeconfig'}
          </dd>
          <dt>Workspaces</dt>
          <dd>{cluster.workspaces}</dd>
          <dt>Added</dt>
          <dd>
            <Ago at={cluster.createdAt} />
          </dd>
        </dl>
      </div>
    </section>
  );
}
