import type { Check } from '@cde/api/checks.ts';
import type { Finding } from '@cde/api/findings.ts';
import type { Workspace } from '@cde/api/workspaces.ts';
import type { Context } from '../../command/context.ts';
import { ownVersion } from '../../completion/version.ts';
import { getWorkspace, listWorkspaces } from '../../connection/endpoints.ts';
import { readAll } from '../../connection/pages.ts';
import { openWorkspaceSession } from '../../ssh/opening.ts';
import { pathRef } from '../../workspaces/reference.ts';
import { findingOf, makeFinding } from './finding.ts';

/** The workspace that is named, through a session with it; without a name, the agents of all running ones of this user. */
export function workspaceCheck(context: Context, reference: string | undefined): Check {
  return {
    name: 'workspace',
    // Without a satellite there is no session.
    dependsOn: reference === undefined ? ['sign-in'] : ['satellites'],
    async run() {
      const client = await context.client();
      if (reference === undefined) {
        const query = { owner: 'me', status: 'running' } as const;
        const all = await readAll((page) => client.call(listWorkspaces, { query: { ...page, ...query } }));
        return all.flatMap(agentFindings);
      }
      try {
        const params = { workspace: pathRef(reference) };
        const workspace = await client.call(getWorkspace, { params });
        const found = [...statusFindings(workspace), ...agentFindings(workspace)];
        if (found.some(({ severity }) => severity === 'error')) return found;
        return [...found, ...(await sessionFindings(context, reference))];
      } catch (error) {
        return [findingOf(error)];
      }
    },
  };
}

const nameOf = ({ owner, name }: Workspace) => `${owner}/${name}`;

function statusFindings(workspace: Workspace): Finding[] {
  if (workspace.status === 'running') return [];
  return [
    makeFinding('error', 'workspace-not-running', `${nameOf(workspace)} is ${workspace.status}.`, {
      ...(workspace.reason && { detail: workspace.reason }),
      actions: [
        workspace.status === 'failed'
          ? { kind: 'read-build-log', workspace: nameOf(workspace) }
          : { kind: 'start-workspace', workspace: nameOf(workspace) },
      ],
    }),
  ];
}

function agentFindings(workspace: Workspace): Finding[] {
  const { agent, status } = workspace;
  if (status !== 'running') return [];
  const name = nameOf(workspace);
  if (!agent.connected)
    return [
      makeFinding('error', 'agent-not-connected', `The agent of ${name} is not connected.`, {
        detail: agent.lastSeenAt ? `It was last seen at ${agent.lastSeenAt}.` : 'It has never connected.',
        hint: 'If it does not come back within a minute, restart the workspace.',
        actions: [
          { kind: 'read-build-log', workspace: name },
          { kind: 'restart-workspace', workspace: name },
        ],
      }),
    ];
  if (agent.version === null || agent.version === ownVersion()) return [];
  return [
    makeFinding('info', 'agent-version', `The agent of ${name} is of the release ${agent.version}.`, {
      hint: 'A restart brings it to that of the server.',
      actions: [{ kind: 'restart-workspace', workspace: name }],
    }),
  ];
}

/** Opens a session as `cde ssh` does, and waits for one round trip. */
async function sessionFindings(context: Context, reference: string): Promise<Finding[]> {
  const { session } = await openWorkspaceSession(context, reference, null, { start: false });
  try {
    await session.ready;
    await session.roundTrip();
    return [];
  } finally {
    session.close();
  }
}
