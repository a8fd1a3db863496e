import type * as activity from '@cde/api/activity.ts';
import type * as cleanup from '@cde/api/cleanup.ts';
import type * as clusters from '@cde/api/clusters.ts';
import type * as diagnosis from '@cde/api/diagnosis.ts';
import type { Endpoint, Method } from '@cde/api/endpoint.ts';
import type * as health from '@cde/api/health.ts';
import type * as identity from '@cde/api/identity.ts';
import type * as nodes from '@cde/api/nodes.ts';
import type * as ports from '@cde/api/ports.ts';
import type * as satellites from '@cde/api/satellites.ts';
import type * as sessions from '@cde/api/sessions.ts';
import type * as templates from '@cde/api/templates.ts';
import type * as workspaces from '@cde/api/workspaces.ts';

/**
 * The endpoints that the CLI calls, without their schemas: loading zod would double the time of every command, and the
 * server validates requests anyway. The types come from the API, and a test compares each line with it.
 */
function light<E extends Endpoint>(
  method: Method,
  path: string,
  ...more: ('body' | 'idempotent')[]
): E & { idempotent?: boolean } {
  return {
    method,
    path,
    ...(more.includes('body') && { body: true }),
    ...(more.includes('idempotent') && { idempotent: true }),
  } as unknown as E;
}

type A = typeof activity;
type C = typeof clusters;
type D = typeof diagnosis;
type H = typeof sessions;
type He = typeof health;
type L = typeof cleanup;
type I = typeof identity;
type N = typeof nodes;
type P = typeof ports;
type S = typeof satellites;
type T = typeof templates;
type W = typeof workspaces;

const v1 = '/api/v1';
export const signInOnce = light<I['signInOnce']>('POST', `${v1}/auth/one-time`, 'body');
export const signOut = light<I['signOut']>('POST', `${v1}/auth/sign-out`, 'body');
export const createOneTimeLink = light<I['createOneTimeLink']>('POST', `${v1}/auth/one-time-links`, 'body');
export const startCliLogin = light<I['startCliLogin']>('POST', `${v1}/auth/cli`, 'body');
export const pollCliLogin = light<I['pollCliLogin']>('POST', `${v1}/auth/cli/token`, 'body');
export const getUser = light<I['getUser']>('GET', `${v1}/users/:user`);
export const listUsers = light<I['listUsers']>('GET', `${v1}/users`);
export const createUser = light<I['createUser']>('POST', `${v1}/users`, 'body', 'idempotent');
export const updateUser = light<I['updateUser']>('PATCH', `${v1}/users/:user`, 'body');
export const setPassword = light<I['setPassword']>('PUT', `${v1}/users/:user/password`, 'body');
export const deleteUser = light<I['deleteUser']>('DELETE', `${v1}/users/:user`);
export const listTokens = light<I['listTokens']>('GET', `${v1}/tokens`);
export const createToken = light<I['createToken']>('POST', `${v1}/tokens`, 'body');
export const revokeToken = light<I['revokeToken']>('DELETE', `${v1}/tokens/:token`);
export const listAudit = light<I['listAudit']>('GET', `${v1}/audit`);

export const postRecording = light<D['postRecording']>(
  'POST',
  `${v1}/workspaces/:workspace/recordings`,
  'body',
);
export const getHealth = light<He['getHealth']>('GET', `${v1}/health`);
export const listIncidents = light<D['listIncidents']>('GET', `${v1}/incidents`);
export const listSessions = light<H['listSessions']>('GET', `${v1}/sessions`);
export const getSessionWindows = light<H['getSessionWindows']>('GET', `${v1}/sessions/:session/windows`);
export const getNetwork = light<H['getNetwork']>('GET', `${v1}/network`);

export const listPorts = light<P['listPorts']>('GET', `${v1}/workspaces/:workspace/ports`);
export const sharePort = light<P['sharePort']>('PUT', `${v1}/workspaces/:workspace/ports/:port`, 'body');
export const unsharePort = light<P['unsharePort']>('DELETE', `${v1}/workspaces/:workspace/ports/:port`);
export const startNetcheck = light<S['startNetcheck']>('POST', `${v1}/netcheck`);
export const listSatellites = light<S['listSatellites']>('GET', `${v1}/satellites`);
export const getSatellite = light<S['getSatellite']>('GET', `${v1}/satellites/:satellite`);
export const addSatellite = light<S['addSatellite']>('POST', `${v1}/satellites`, 'body');
export const drainSatellite = light<S['drainSatellite']>(
  'POST',
  `${v1}/satellites/:satellite/drain`,
  'body',
  'idempotent',
);
export const setSatelliteWeb = light<S['setSatelliteWeb']>('PUT', `${v1}/satellites/:satellite/web`, 'body');
export const removeSatellite = light<S['removeSatellite']>('DELETE', `${v1}/satellites/:satellite`);

export const listClusters = light<C['listClusters']>('GET', `${v1}/clusters`);
export const getCluster = light<C['getCluster']>('GET', `${v1}/clusters/:cluster`);
export const addCluster = light<C['addCluster']>('POST', `${v1}/clusters`, 'body', 'idempotent');
export const updateCluster = light<C['updateCluster']>('PATCH', `${v1}/clusters/:cluster`, 'body');
export const removeCluster = light<C['removeCluster']>('DELETE', `${v1}/clusters/:cluster`);
export const listOrphans = light<C['listOrphans']>('GET', `${v1}/orphans`);
export const listNodes = light<N['listNodes']>('GET', `${v1}/nodes`);
export const getNode = light<N['getNode']>('GET', `${v1}/nodes/:node`);
export const adoptOrphan = light<C['adoptOrphan']>('POST', `${v1}/orphans/adopt`, 'body');
export const cleanOrphans = light<C['cleanOrphans']>('POST', `${v1}/orphans/clean`, 'body');
export const createKubeCredentials = light<C['createKubeCredentials']>(
  'POST',
  `${v1}/workspaces/:workspace/kube-credentials`,
  'body',
);
export const getBuilder = light<C['getBuilder']>('GET', `${v1}/workspaces/:workspace/builder`);
export const createBuilderCredentials = light<C['createBuilderCredentials']>(
  'POST',
  `${v1}/workspaces/:workspace/builder/credentials`,
  'body',
);
export const listRetainedHomes = light<W['listRetainedHomes']>('GET', `${v1}/homes`);
export const deleteRetainedHome = light<W['deleteRetainedHome']>('DELETE', `${v1}/homes/:home`);

export const listTemplates = light<T['listTemplates']>('GET', `${v1}/templates`);
export const getTemplate = light<T['getTemplate']>('GET', `${v1}/templates/:template`);
export const listTemplateVersions = light<T['listTemplateVersions']>(
  'GET',
  `${v1}/templates/:template/versions`,
);
export const validateTemplate = light<T['validateTemplate']>('POST', `${v1}/templates/validate`, 'body');
export const publishTemplate = light<T['publishTemplate']>('POST', `${v1}/templates`, 'body', 'idempotent');
export const activateTemplateVersion = light<T['activateTemplateVersion']>(
  'POST',
  `${v1}/templates/:template/versions/:number/activate`,
  'idempotent',
);
export const deleteTemplate = light<T['deleteTemplate']>('DELETE', `${v1}/templates/:template`);

const workspace = `${v1}/workspaces/:workspace`;
export const listWorkspaces = light<W['listWorkspaces']>('GET', `${v1}/workspaces`);
export const createWorkspace = light<W['createWorkspace']>('POST', `${v1}/workspaces`, 'body', 'idempotent');
export const getWorkspace = light<W['getWorkspace']>('GET', workspace);
export const renameWorkspace = light<W['renameWorkspace']>('PATCH', workspace, 'body');
export const startWorkspace = light<W['startWorkspace']>('POST', `${workspace}/start`, 'body', 'idempotent');
export const stopWorkspace = light<W['stopWorkspace']>('POST', `${workspace}/stop`, 'body', 'idempotent');
export const restartWorkspace = light<W['restartWorkspace']>(
  'POST',
  `${workspace}/restart`,
  'body',
  'idempotent',
);
export const updateWorkspace = light<W['updateWorkspace']>(
  'POST',
  `${workspace}/update`,
  'body',
  'idempotent',
);
export const deleteWorkspace = light<W['deleteWorkspace']>('DELETE', workspace);
export const listBuilds = light<W['listBuilds']>('GET', `${workspace}/builds`);
export const getBuildLog = light<W['getBuildLog']>('GET', `${v1}/builds/:build/log`);
export const cancelBuild = light<W['cancelBuild']>(
  'POST',
  `${v1}/builds/:build/cancel`,
  'body',
  'idempotent',
);
export const createTicket = light<W['createTicket']>('POST', `${workspace}/tickets`, 'body');
export const getWorkspaceStats = light<W['getWorkspaceStats']>('GET', `${workspace}/stats`);

export const getWorkspaceActivity = light<A['getWorkspaceActivity']>('GET', `${workspace}/activity`);
export const listActivityEvents = light<A['listActivityEvents']>('GET', `${workspace}/activity/events`);
export const keepWorkspace = light<A['keepWorkspace']>('POST', `${workspace}/keep`, 'body', 'idempotent');
export const setIdleChoices = light<A['setIdleChoices']>('PUT', `${workspace}/idle-policy`, 'body');
export const createLease = light<A['createLease']>('POST', `${workspace}/leases`, 'body', 'idempotent');
export const endLease = light<A['endLease']>('DELETE', `${workspace}/leases/:lease`);
export const getCleanupPolicy = light<L['getCleanupPolicy']>('GET', `${v1}/cleanup/policy`);
export const setCleanupPolicy = light<L['setCleanupPolicy']>('PUT', `${v1}/cleanup/policy`, 'body');
export const previewCleanup = light<L['previewCleanup']>('GET', `${v1}/cleanup/preview`);
export const releaseBrake = light<L['releaseBrake']>('POST', `${v1}/cleanup/release`, 'body');
export const getCleanupReport = light<L['getCleanupReport']>('GET', `${v1}/cleanup/report`);
