import type { Context } from '../command/context.ts';
import { listWorkspaces } from '../connection/endpoints.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure, usage } from '../failure/failure.ts';

/** Chooses the workspace: the named one, that of the environment, or the user's only one that runs on Kubernetes. */
export async function chooseWorkspace(context: Context, named: string | undefined): Promise<string> {
  const given = named ?? context.env.CDE_WORKSPACE;
  if (given) return given;
  const client = await context.client();
  const { items } = await client.call(listWorkspaces, { query: { owner: 'me', status: 'running' } });
  const fit = items.filter(({ provider }) => provider === 'kubernetes');
  if (fit.length === 1) return fit[0]!.name;
  if (fit.length === 0)
    throw new Failure('workspace-not-running', 'No workspace of yours runs on Kubernetes.', {
      exitCode: exitCodes.conflict,
      hint: 'Name the one to build in, and it is started: --workspace NAME',
    });
  throw usage(
    'Several workspaces of yours run; which one is to build?',
    `--workspace ${fit.map(({ name }) => name).join(', --workspace ')}`,
  );
}
