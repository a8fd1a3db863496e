import type { Build, Workspace } from '@cde/api/workspaces.ts';
import type { Context } from '../command/context.ts';
import { getWorkspace } from '../connection/endpoints.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure, toFailure } from '../failure/failure.ts';
import { pathRef } from '../workspaces/reference.ts';

/** Ends of a session that have a cause which the server knows: the agent only says that it goes. */
const explained = new Set([
  'agent-closed',
  'agent-lost',
  'agent-not-connected',
  'agent-restarted',
  'session-unknown',
  'workspace-not-running',
  'workspace-stopped',
]);
/** How long the server may take: a person waits for the prompt. */
const answerMs = 3_000;
/** How far the clocks of this machine and the server may differ. */
const clockToleranceMs = 60_000;

/**
 * What ended a session with a workspace, in words: who stopped, deleted or updated it. Gives the failure back where the
 * server does not know, or does not answer.
 */
export async function explainEnd(context: Context, reference: string, failure: Failure): Promise<Failure> {
  if (!explained.has(failure.code)) return failure;
  try {
    const client = await context.client();
    const signal = AbortSignal.timeout(answerMs);
    const workspace = await client.call(getWorkspace, { params: { workspace: pathRef(reference) }, signal });
    return findEndReason(reference, workspace, new Date(performance.timeOrigin)) ?? failure;
  } catch (error) {
    if (toFailure(error).code !== 'workspace-not-found') return failure;
    return new Failure('workspace-not-running', `${reference} was deleted.`, {
      exitCode: exitCodes.conflict,
    });
  }
}

/** Null where nothing about the workspace explains the end. `since`: when the session began, or before. */
export function findEndReason(
  reference: string,
  { status, reason, latestBuild: build }: Pick<Workspace, 'status' | 'reason' | 'latestBuild'>,
  since: Date,
): Failure | null {
  const ended = (what: string, hint?: string) =>
    new Failure('workspace-not-running', `${reference} ${what}.`, {
      exitCode: exitCodes.conflict,
      detail: reason ?? undefined,
      hint,
    });
  const start = `Start it: cde start ${reference}`;
  if (build?.transition === 'delete') return ended(`was deleted${by(build)}`);
  if (status === 'deleting' || status === 'deleted') return ended('was deleted');
  if (status === 'failed') return ended('has failed', `See why: cde logs ${reference}`);
  if (build?.transition === 'stop') return ended(`was stopped${by(build)}`, start);
  if (status === 'stopped') return ended('was stopped', start);
  const isRecent =
    build && (!build.finishedAt || Date.parse(build.createdAt) > since.getTime() - clockToleranceMs);
  if (!isRecent) return null;
  const verb = build.transition === 'update' ? 'updated' : 'restarted';
  return new Failure('agent-restarted', `${reference} was ${verb}${by(build)}, which ended the session.`, {
    exitCode: exitCodes.unreachable,
    hint: 'Connect again once it runs.',
  });
}

/** ` by ada`, or what the system gave as its reason. */
function by({ initiator, reason }: Pick<Build, 'initiator' | 'reason'>): string {
  if (initiator !== 'system') return ` by ${initiator}`;
  return reason ? ` by the system (${reason.replace(/\.$/, '')})` : ' by the system';
}
