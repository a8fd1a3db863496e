import type { Context } from '../command/context.ts';
import { line, note, type Result, result } from '../command/result.ts';
import { getWorkspace, renameWorkspace } from '../connection/endpoints.ts';
import { hostOn, pathRef, shortRef } from './reference.ts';

export async function rename(context: Context, input: { workspace: string; name: string }): Promise<Result> {
  const client = await context.client({ patienceMs: 5_000 });
  // By its id: repeated after a lost reply, the old name would not be found.
  const { id } = await client.call(getWorkspace, { params: { workspace: pathRef(input.workspace) } });
  const workspace = await client.call(renameWorkspace, {
    params: { workspace: id },
    body: { name: input.name },
  });
  const reference = input.workspace.includes('/') ? shortRef(workspace, undefined) : workspace.name;
  return result(workspace, () => [
    line(
      `${input.workspace} is now ${reference}. Its SSH host name is ${hostOn(context.server(), reference)}`,
    ),
    workspace.status === 'running' &&
      note('Open sessions are kept. The host name inside changes with the next start.'),
  ]);
}
