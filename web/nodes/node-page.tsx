import type { Node, NodeKernelProfile, NodeWorkspace } from '@cde/api/nodes.ts';
import { useQuery } from '@tanstack/react-query';
import { Link, useParams } from '@tanstack/react-router';
import { Fragment } from 'react';
import { useTitle } from '../shell.tsx';
import { bytes } from '../ui/format.ts';
import { Spinner } from '../ui/icons.tsx';
import { Problem } from '../ui/problem.tsx';
import { Ago } from '../ui/time.tsx';
import { NodeState, ProfileState, share } from './node-state.tsx';
import { nodeQuery } from './queries.ts';
import '../workspaces/workspaces.css';

/** One node: its kernel profiles, workspaces and capacity. */
export function NodePage() {
  const { node: ref } = useParams({ from: '/signed-in/nodes/$node' });
  const node = useQuery(nodeQuery(ref));
  const name = ref.split('~').at(-1)!;
  useTitle(name);
  return (
    <main id="main">
      <div className="page-head">
        <h1 className="crumbs">
          <span>
            <span className="owner">
              <Link to="/nodes">Nodes</Link> /{' '}
            </span>
            {name}
          </span>
        </h1>
        {node.data && <NodeState node={node.data} />}
        {node.data?.reason && <p>{node.data.reason}</p>}
      </div>
      <Problem error={node.error} retry={() => node.refetch()} />
      {node.isPending && !node.error && (
        <p className="row muted" role="status">
          <Spinner /> Loading…
        </p>
      )}
      {node.data && (
        <div className="workspace-columns">
          <div className="stack">
            <KernelProfiles node={node.data} />
            <Workspaces workspaces={node.data.onNode} />
          </div>
          <Details node={node.data} />
        </div>
      )}
    </main>
  );
}

function KernelProfiles({ node }: { node: Node }) {
  const { kernelProfiles, kernelFault, notRestored } = node;
  return (
    <section className="panel" aria-labelledby="profiles-title">
      <header>
        <h2 id="profiles-title">Kernel profiles</h2>
      </header>
      <div className="body">
        {kernelFault && <p role="alert">{kernelFault}</p>}
        {kernelProfiles.length === 0 && (
          <p className="muted">
            {node.cluster === null
              ? 'noded maintains kernel profiles on the nodes of clusters only.'
              : 'No kernel profile applies to this node. An administrator adds them to the values of the chart.'}
          </p>
        )}
        {kernelProfiles.map((profile) => (
          <Profile key={profile.name} profile={profile} />
        ))}
        {notRestored.map(({ sysctl, message }) => (
          <p key={sysctl}>{message}</p>
        ))}
      </div>
    </section>
  );
}

function Profile({ profile }: { profile: NodeKernelProfile }) {
  const { name, since, message, lastDrift } = profile;
  return (
    <div>
      <h3>
        {name} <ProfileState profile={profile} />
      </h3>
      {message && <p>{message}</p>}
      <p className="hint">
        {since && (
          <>
            In this state since <Ago at={since} />.{' '}
          </>
        )}
        {lastDrift ? (
          <>
            Last drift <Ago at={lastDrift.at} />: <code>{lastDrift.sysctl}</code> was changed from{' '}
            <code>{lastDrift.to}</code> to <code>{lastDrift.from}</code>
            {lastDrift.by !== null && ` (${lastDrift.by})`}.
          </>
        ) : (
          'No drift so far.'
        )}
      </p>
    </div>
  );
}

function Workspaces({ workspaces }: { workspaces: NodeWorkspace[] }) {
  return (
    <section className="panel" aria-labelledby="workspaces-title">
      <header>
        <h2 id="workspaces-title">Workspaces</h2>
        <span className="muted">{workspaces.length}</span>
      </header>
      <div className="body">
        {workspaces.length === 0 && <p className="muted">No workspaces run on this node.</p>}
        <ul className="plain">
          {workspaces.map(({ id, owner, name, status }) => (
            <li key={id}>
              <Link to="/workspaces/$owner/$name" params={{ owner, name }}>
                {owner}/{name}
              </Link>{' '}
              <span className="muted">{status}</span>
            </li>
          ))}
        </ul>
      </div>
    </section>
  );
}

function Details({ node }: { node: Node }) {
  const facts: [string, string | null][] = [
    ['Provider', node.provider],
    ['Pool', node.pool],
    ['CPUs', share(node, 'cpus')],
    ['Memory', share(node, 'memoryBytes', bytes)],
    ['Storage', share(node, 'storageBytes', bytes)],
    ['Pods', share(node, 'pods')],
    ['System', node.os],
    ['Kernel', node.kernel],
    ['Architecture', node.architecture],
    ['Runtime', node.runtime],
  ];
  return (
    <section className="panel" aria-labelledby="details-title">
      <header>
        <h2 id="details-title">Details</h2>
      </header>
      <div className="body">
        <dl className="facts">
          {node.cluster !== null && (
            <>
              <dt>Cluster</dt>
              <dd>
                <Link to="/clusters/$cluster" params={{ cluster: node.cluster }}>
                  {node.cluster}
                </Link>
              </dd>
            </>
          )}
          {facts.map(
            ([title, value]) =>
              value !== null && (
                <Fragment key={title}>
                  <dt>{title}</dt>
                  <dd>{value}</dd>
                </Fragment>
              ),
          )}
        </dl>
      </div>
    </section>
  );
}
