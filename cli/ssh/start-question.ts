import type { Client } from '@cde/api/client.ts';
import type { Workspace } from '@cde/api/workspaces.ts';
import { askYesNo, canAsk } from '../command/ask.ts';
import type { Context } from '../command/context.ts';
import { getWorkspaceActivity } from '../connection/endpoints.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure } from '../failure/failure.ts';
import { relative } from '../output/times.ts';
import { pathRef } from '../workspaces/reference.ts';
import type { StartInput } from './start-option.ts';

/** Whether to start a stopped workspace. With `ask`: if its owner has chosen that or the user agrees; null if there is no terminal to ask on. */
export type Start = boolean | { ask: ((question: string) => Promise<boolean>) | null };

/** What the options of a command say; without one, the person at this terminal is asked, if there is one. */
export function startChoice(context: Context, { start, noStart }: StartInput): Start {
  if (noStart) return false;
  if (start) return true;
  if (!canAsk(context)) return { ask: null };
  // A copy between two workspaces may ask for both.
  let last: Promise<unknown> = Promise.resolve();
  return {
    ask(question) {
      const answer = last.then(() => askYesNo(context, question));
      last = answer.catch(() => {});
      return answer;
    },
  };
}

/**
 * Returns if a stopped workspace may be started for a person who connects: its owner has chosen that, or the person says so.
 * Throws `workspace-not-running` otherwise. `ask` puts the question; null if there is no terminal to ask on.
 */
export async function requireStart(
  client: Client,
  reference: string,
  workspace: Workspace,
  ask: ((question: string) => Promise<boolean>) | null,
): Promise<void> {
  if (await startsOnConnect(client, reference)) return;
  if (!ask) throw notRunning(reference, workspace, ', or add --start');
  const question = `${reference} ${stoppedHow(workspace)}. Start it?`;
  if (!(await ask(question))) throw notRunning(reference, workspace);
}

async function startsOnConnect(client: Client, reference: string): Promise<boolean> {
  try {
    const { policy } = await client.call(getWorkspaceActivity, { params: { workspace: pathRef(reference) } });
    return policy.startOnConnect;
  } catch (error) {
    // A server that knows no such setting.
    if ((error as { status?: number }).status === 404) return false;
    throw error;
  }
}

/** `was stopped because it was idle; …`, `was stopped by ada 2 h ago`, `is failed (…)`. */
function stoppedHow(workspace: Workspace): string {
  const { status, latestBuild: build, reason } = workspace;
  const how = /^stopped (.+?)\.?$/i.exec(reason ?? stoppedBy(workspace) ?? '')?.[1];
  if (how === undefined) return `is ${status}${reason ? ` (${reason.replace(/\.$/, '')})` : ''}`;
  if (status === 'stopping') return `is being stopped ${how}`;
  const when = build?.finishedAt && !how.includes(';') ? ` ${relative(build.finishedAt)}` : '';
  return `was stopped ${how}${when}`;
}

export function notRunning(reference: string, workspace: Workspace, more = ''): Failure {
  return new Failure('workspace-not-running', `${reference} is ${workspace.status}.`, {
    exitCode: exitCodes.conflict,
    detail: workspace.reason ?? stoppedBy(workspace),
    hint: workspace.status.startsWith('delet') ? undefined : `Start it: cde start ${reference}${more}`,
  });
}

function stoppedBy({ status, latestBuild: build }: Workspace): string | undefined {
  const isStopped = status === 'stopping' || status === 'stopped';
  if (!isStopped || build?.transition !== 'stop') return undefined;
  if (build.initiator !== 'system') return `Stopped by ${build.initiator}.`;
  return build.reason === '' ? undefined : `${build.reason.charAt(0).toUpperCase()}${build.reason.slice(1)}.`;
}
