import type { Build, Workspace } from '@cde/api/workspaces.ts';
import { useQuery } from '@tanstack/react-query';
import { Link, useParams } from '@tanstack/react-router';
import { useState } from 'react';
import { CallError } from '../client.ts';
import { IdlePanel } from '../idle/idle-panel.tsx';
import { StopWarning } from '../idle/stop-warning.tsx';
import { Timeline } from '../idle/timeline.tsx';
import { UnusedNotice } from '../idle/unused-notice.tsx';
import { usePolling, useTopic } from '../live/live.ts';
import { connects, seesClusters, useMe } from '../me.ts';
import { nodeOfQuery, refOf } from '../nodes/queries.ts';
import { useTitle } from '../shell.tsx';
import { CopyLine } from '../ui/copy.tsx';
import { Icon, Spinner } from '../ui/icons.tsx';
import { Problem } from '../ui/problem.tsx';
import { Ago } from '../ui/time.tsx';
import { Actions } from './actions.tsx';
import { LogView } from './log-view.tsx';
import { Ports } from './ports.tsx';
import { buildsQuery, workspaceQuery } from './queries.ts';
import { Stages } from './stages.tsx';
import { Stats } from './stats.tsx';
import { busy, Status } from './status.tsx';
import './workspaces.css';

export function WorkspacePage() {
  const { owner, name } = useParams({ from: '/signed-in/workspaces/$owner/$name' });
  useTitle(`${owner}/${name}`);
  const polling = usePolling();
  const query = useQuery({ ...workspaceQuery(`${owner}~${name}`), refetchInterval: polling });
  const workspace = query.data;
  const gone = query.error instanceof CallError && query.error.status === 404;
  useTopic(workspace && !gone ? `workspace:${workspace.id}` : null);

  if (gone)
    return (
      <main id="main" className="empty">
        <strong>
          {workspace
            ? `${owner}/${name} is deleted`
            : `There is no workspace ${owner}/${name}, or you cannot see it`}
        </strong>
        <Link className="button" to="/workspaces">
          Show workspaces
        </Link>
      </main>
    );
  return (
    <main id="main">
      <div className="page-head">
        <h1 className="crumbs">
          <span>
            <span className="owner">{owner}/</span>
            {name}
          </span>
        </h1>
        {workspace && <Status workspace={workspace} />}
        <div className="end">
          {workspace && (
            <>
              {workspace.status === 'running' && <TerminalLink workspace={workspace} />}
              <Actions workspace={workspace} />
            </>
          )}
        </div>
        {workspace?.reason && <p className="pre-line">{workspace.reason}</p>}
      </div>
      {query.error && !workspace ? (
        <Problem error={query.error} retry={() => query.refetch()} />
      ) : !workspace ? (
        <p className="row muted" role="status">
          <Spinner /> Loading…
        </p>
      ) : (
        <>
          <StopWarning workspace={workspace} />
          <UnusedNotice workspace={workspace} />
          <Loaded workspace={workspace} />
        </>
      )}
    </main>
  );
}

function TerminalLink({ workspace }: { workspace: Workspace }) {
  const me = useMe();
  if (!connects(me, workspace.owner)) return null;
  return (
    <Link
      className="button primary"
      to="/workspaces/$owner/$name/terminal"
      params={{ owner: workspace.owner, name: workspace.name }}
    >
      <Icon name="terminal" /> Terminal
    </Link>
  );
}

function Loaded({ workspace }: { workspace: Workspace }) {
  const polling = usePolling();
  const list = useQuery({ ...buildsQuery(workspace.id), refetchInterval: polling });
  const [chosen, setChosen] = useState<string | null>(null);
  const builds: Build[] = list.data ?? (workspace.latestBuild ? [workspace.latestBuild] : []);
  const build = builds.find((one) => one.id === chosen) ?? builds[0];
  return (
    <div className="workspace-columns">
      <div className="stack">
        {build && <Stages build={build} />}
        {build && (
          <LogView
            build={build}
            builds={builds}
            // Choosing the latest build follows the latest build.
            onChoose={(id) => setChosen(id === builds[0]?.id ? null : id)}
          />
        )}
        <Timeline workspace={workspace} />
        {list.error && <Problem error={list.error} retry={() => list.refetch()} />}
      </div>
      <div className="stack">
        <Connect workspace={workspace} />
        <IdlePanel workspace={workspace} />
        <Namespace workspace={workspace} />
        <Ports workspace={workspace} />
        <Stats workspace={workspace} />
        <Facts workspace={workspace} />
      </div>
    </div>
  );
}

function Connect({ workspace }: { workspace: Workspace }) {
  const me = useMe();
  if (!connects(me, workspace.owner)) return null;
  const { name } = workspace;
  const home = workspace.home.split('/').map(encodeURIComponent).join('/');
  return (
    <section className="panel" aria-labelledby="connect-title">
      <header>
        <h2 id="connect-title">Connect</h2>
        {workspace.status === 'running' && (
          <a className="end button small" href={`vscode://vscode-remote/ssh-remote+${name}.cde${home}`}>
            <Icon name="link" /> VS Code
          </a>
        )}
      </header>
      <div className="body stack tight">
        <CopyLine text={`cde ssh ${name}`} label={`Copy: cde ssh ${name}`} />
        <CopyLine text={`ssh ${name}.cde`} label={`Copy: ssh ${name}.cde`} />
        <p className="hint">
          <Link to="/workspaces/$owner/$name/connection" params={{ owner: workspace.owner, name }}>
            How the sessions went
          </Link>
          : latency, interruptions and their causes.
        </p>
        <p className="hint">
          For <code>ssh</code> and VS Code, run <code>cde config-ssh</code> on your machine once.
          {workspace.status !== 'running' && !busy(workspace) && ' Start the workspace before you connect.'}
        </p>
      </div>
    </section>
  );
}

/** How to reach the workspace's namespace with kubectl. Kubernetes only. */
function Namespace({ workspace }: { workspace: Workspace }) {
  const me = useMe();
  const { name, namespace } = workspace;
  if (workspace.provider !== 'kubernetes' || !connects(me, workspace.owner)) return null;
  return (
    <section className="panel" aria-labelledby="namespace-title">
      <header>
        <h2 id="namespace-title">kubectl and Tilt</h2>
      </header>
      <div className="body stack tight">
        <CopyLine text={`cde kubeconfig ${name}`} label={`Copy: cde kubeconfig ${name}`} />
        <p className="hint">
          Adds a kubectl context for the namespace
          {namespace && (
            <>
              {' '}
              <code>{namespace}</code>
            </>
          )}{' '}
          to your machine. You are admin there.
        </p>
        <CopyLine
          text={`cde env ${name} -- kubectl get pods`}
          label={`Copy: cde env ${name} -- kubectl get pods`}
        />
        <p className="hint">
          Runs one command with that context, such as <code>tilt up</code>, and leaves your kubeconfig
          unchanged.
          {!namespace && ' The first start creates the namespace.'}
        </p>
      </div>
    </section>
  );
}

function ClusterFacts({ workspace }: { workspace: Workspace }) {
  const me = useMe();
  const { cluster, namespace } = workspace;
  return (
    <>
      {cluster && (
        <>
          <dt>Cluster</dt>
          <dd>
            {seesClusters(me.role) ? (
              <Link to="/clusters/$cluster" params={{ cluster }}>
                {cluster}
              </Link>
            ) : (
              cluster
            )}
          </dd>
        </>
      )}
      {namespace && (
        <>
          <dt>Namespace</dt>
          <dd>
            <code>{namespace}</code>
          </dd>
        </>
      )}
    </>
  );
}

/** Where it runs, for those who see nodes. */
function NodeFact({ workspace }: { workspace: Workspace }) {
  const sees = seesClusters(useMe().role) && workspace.status === 'running';
  const node = useQuery({ ...nodeOfQuery(workspace.id, workspace.status), enabled: sees });
  if (!sees || !node.data) return null;
  return (
    <>
      <dt>Node</dt>
      <dd>
        <Link to="/nodes/$node" params={{ node: refOf(node.data) }}>
          {node.data.name}
        </Link>
      </dd>
    </>
  );
}

function Facts({ workspace }: { workspace: Workspace }) {
  const parameters = Object.entries(workspace.parameters);
  return (
    <section className="panel" aria-labelledby="facts-title">
      <header>
        <h2 id="facts-title">Details</h2>
      </header>
      <div className="body">
        <dl className="facts">
          <dt>Template</dt>
          <dd>
            <Link to="/templates/$template" params={{ template: workspace.template }}>
              {workspace.template}
            </Link>{' '}
            v{workspace.templateVersion}{' '}
            {workspace.outdated && (
              <span className="chip warn">v{workspace.activeTemplateVersion} is active</span>
            )}
          </dd>
          <dt>Provider</dt>
          <dd>{workspace.provider}</dd>
          <ClusterFacts workspace={workspace} />
          <NodeFact workspace={workspace} />
          {workspace.isolation && (
            <>
              <dt>Isolation</dt>
              <dd>{workspace.isolation}</dd>
            </>
          )}
          <dt>Agent</dt>
          <dd>
            {workspace.agent.connected ? 'connected' : 'not connected'}
            {workspace.agent.version && `, version ${workspace.agent.version}`}
            {!workspace.agent.connected && workspace.agent.lastSeenAt && (
              <>
                , seen <Ago at={workspace.agent.lastSeenAt} />
              </>
            )}
          </dd>
          <dt>Created</dt>
          <dd>
            <Ago at={workspace.createdAt} />
          </dd>
          {parameters.map(([key, value]) => (
            <Parameter key={key} name={key} value={value} />
          ))}
        </dl>
      </div>
    </section>
  );
}

function Parameter({ name, value }: { name: string; value: Workspace['parameters'][string] }) {
  const text = Array.isArray(value) ? value.join(', ') : String(value);
  return (
    <>
      <dt>
        <code>{name}</code>
      </dt>
      <dd>{text === '' ? <span className="muted">empty</span> : <code>{text}</code>}</dd>
    </>
  );
}
