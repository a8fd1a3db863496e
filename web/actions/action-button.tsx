import type { Action } from '@cde/api/actions.ts';
import { useQuery } from '@tanstack/react-query';
import { Link, type LinkProps } from '@tanstack/react-router';
import { meQuery, seesClusters, seesSatellites, seesUsers } from '../me.ts';
import { WorkspaceButton } from './workspace-button.tsx';

type Destination = Pick<LinkProps, 'to' | 'params'> & { label: string };

/** `owner/name` as the parameters of a workspace's page. */
function pageParams(workspace: string): { owner: string; name: string } {
  const [owner = '', name = ''] = workspace.split('/');
  return { owner, name };
}

/** The page of an action; null if it runs here or exists only on the command line. */
function destinationOf(action: Action): Destination | null {
  switch (action.kind) {
    case 'sign-in':
      return { to: '/sign-in', label: 'Sign in' };
    case 'list-workspaces':
      return { to: '/workspaces', label: 'Show workspaces' };
    case 'show-workspace':
    case 'read-build-log':
    case 'list-ports':
      return {
        to: '/workspaces/$owner/$name',
        params: pageParams(action.workspace),
        label: `Show ${action.workspace}`,
      };
    case 'open-terminal':
      return {
        to: '/workspaces/$owner/$name/terminal',
        params: pageParams(action.workspace),
        label: 'Open terminal',
      };
    case 'list-homes':
      return { to: '/homes', label: 'Show homes' };
    case 'list-templates':
      return { to: '/templates', label: 'Show templates' };
    case 'show-template':
      return {
        to: '/templates/$template',
        params: { template: action.template },
        label: `Show template ${action.template}`,
      };
    case 'show-cluster':
    case 'configure-cluster':
      return {
        to: '/clusters/$cluster',
        params: { cluster: action.cluster },
        label: `Show cluster ${action.cluster}`,
      };
    case 'list-clusters':
    case 'add-cluster':
    case 'list-orphans':
    case 'clean-orphans':
      return { to: '/clusters', label: 'Show clusters' };
    case 'list-nodes':
      return { to: '/nodes', label: 'Show nodes' };
    case 'list-satellites':
    case 'add-satellite':
    case 'allow-satellite-web':
      return { to: '/satellites', label: 'Show satellites' };
    case 'list-users':
      return { to: '/users', label: 'Show users' };
    case 'list-tokens':
    case 'create-token':
      return { to: '/tokens', label: 'Show tokens' };
    default:
      return null;
  }
}

/**
 * An action of an error as a button or link; nothing if this user is not allowed to do it or the dashboard has no page
 * for it.
 */
export function ActionButton({ action }: { action: Action }) {
  // From the cache only: on the sign-in page there is no user.
  const role = useQuery({ ...meQuery, enabled: false }).data?.role;
  switch (action.kind) {
    case 'start-workspace':
    case 'restart-workspace':
    case 'update-workspace':
    case 'cancel-build':
      return <WorkspaceButton kind={action.kind} workspace={action.workspace} />;
  }
  const destination = destinationOf(action);
  if (!destination) return null;
  const { to, params, label } = destination;
  if (to === '/users' && !(role && seesUsers(role))) return null;
  if (to === '/satellites' && !(role && seesSatellites(role))) return null;
  if (to?.startsWith('/clusters') && !(role && seesClusters(role))) return null;
  return (
    <Link className="button small" to={to} params={params as never}>
      {label}
    </Link>
  );
}
