import type { AgentStats } from '@cde/api/agent.ts';
import type { Client } from '@cde/api/client.ts';
import { homeSpaceWarning } from '@cde/api/home-space.ts';
import { deletionText } from '@cde/api/idle-text.ts';
import { bytes } from '@cde/api/sizes.ts';
import type { Workspace } from '@cde/api/workspaces.ts';
import { stateRows } from '../activity/state-rows.ts';
import type { Context } from '../command/context.ts';
import { type Format, fields, type Result, result } from '../command/result.ts';
import { getWorkspace, getWorkspaceActivity, getWorkspaceStats } from '../connection/endpoints.ts';
import { clean } from '../output/output.ts';
import { duration } from '../output/times.ts';
import { hostOn, pathRef } from './reference.ts';
import { paintBuildStatus, paintStatus } from './status.ts';

export async function show(context: Context, input: { workspace: string }): Promise<Result> {
  const client = await context.client();
  const params = { workspace: pathRef(input.workspace) };
  const workspace = await client.call(getWorkspace, { params });
  return result(workspace, async (format) => [
    fields(await rows(context, client, { ...input, params }, workspace, format)),
  ]);
}

async function rows(
  context: Context,
  client: Client,
  input: { workspace: string; params: { workspace: string } },
  workspace: Workspace,
  { colors: c, moment: when }: Format,
): Promise<[string, string | null | undefined][]> {
  const { params } = input;
  const { stats } = workspace.agent.connected
    ? await client.call(getWorkspaceStats, { params })
    : { stats: null };
  const { agent, latestBuild } = workspace;
  return [
    ['name', c.bold(`${workspace.owner}/${workspace.name}`)],
    ['status', paintStatus(workspace.status, c)],
    ['reason', workspace.reason && clean(workspace.reason)],
    ...(workspace.idle ? stateRows({ state: workspace.idle }) : await startRows(client, workspace, params)),
    ['archived', workspace.archivedAt && `${when(workspace.archivedAt)}; cde start and cde keep end it`],
    ['deletes', workspace.deletesAt && deletionText(workspace.deletesAt, Date.now())],
    ['template', templateOf(workspace)],
    ...Object.entries(workspace.parameters).map(([key, value]): [string, string] => [
      `  ${key}`,
      clean(Array.isArray(value) ? value.join(', ') : String(value)),
    ]),
    ['provider', workspace.provider],
    ['isolation', workspace.isolation],
    ['cluster', workspace.cluster && clean(workspace.cluster)],
    ['namespace', workspace.namespace && clean(workspace.namespace)],
    [
      'agent',
      agent.connected ? c.green('connected') : agent.lastSeenAt && `last seen ${when(agent.lastSeenAt)}`,
    ],
    ['host key', agent.sshHostKey],
    ['ssh', `${hostOn(context.server(), input.workspace)}  (after cde config-ssh)`],
    ['cpu', stats && `${Math.round(stats.cpuPercent)} % of a core`],
    ['memory', stats && sizes(stats.memoryUsedBytes, stats.memoryLimitBytes)],
    ['home', stats && homeText(stats, c)],
    ['ports', stats?.openPorts.map(({ port, process }) => `${port} (${clean(process)})`).join(', ')],
    [
      'sessions',
      stats && stats.sessions.length > 0 ? stats.sessions.map(({ kind }) => kind).join(', ') : null,
    ],
    ['created', when(workspace.createdAt)],
    [
      'last build',
      latestBuild &&
        `${latestBuild.number} ${latestBuild.transition} ${paintBuildStatus(latestBuild.status, c)} by ${latestBuild.initiator}, ${when(latestBuild.createdAt)}`,
    ],
    ...(latestBuild?.stages ?? []).map((stage): [string, string] => [
      `  ${stage.name}`,
      `${stage.status}${stage.finishedAt ? ` ${duration(Date.parse(stage.finishedAt) - Date.parse(stage.startedAt))}` : ''}`,
    ]),
    ['error', latestBuild?.error && c.red(clean(latestBuild.error.message))],
  ];
}

/** When the schedule of a stopped workspace starts it. */
async function startRows(
  client: Client,
  { status }: Workspace,
  params: { workspace: string },
): Promise<[string, string][]> {
  if (status !== 'stopped') return [];
  try {
    return stateRows(await client.call(getWorkspaceActivity, { params }));
  } catch (error) {
    // A server of an older release.
    if ((error as { status?: number }).status === 404) return [];
    throw error;
  }
}

function templateOf(workspace: Workspace): string {
  const newer = workspace.outdated
    ? ` (version ${workspace.activeTemplateVersion} is active: cde update)`
    : '';
  return `${workspace.template} version ${workspace.templateVersion}${newer}`;
}

function homeText(stats: AgentStats, c: Format['colors']): string {
  const size = sizes(stats.homeUsedBytes, stats.homeTotalBytes);
  const warning = homeSpaceWarning(stats);
  return warning === null ? size : `${size}; ${c.yellow(`its disk is ${warning}`)}`;
}

function sizes(used: number | null, total: number | null): string {
  if (used === null) return 'not measured yet';
  return total === null ? `${bytes(used)} (not limited here)` : `${bytes(used)} of ${bytes(total)}`;
}
