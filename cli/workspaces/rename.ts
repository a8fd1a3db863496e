import type { Context } from '../context.ts';
import { getWorkspace, renameWorkspace } from '../endpoints.ts';
import { hostOn, pathRef, shortRef } from './reference.ts';

export async function rename(
  context: Context,
  input: { workspace: string; name: string },
): Promise<number | undefined> {
  const { out } = context;
  const client = await context.client({ patienceMs: 5_000 });
  // By its id: repeated after a lost reply, the old name would not be found.
  const { id } = await client.call(getWorkspace, { params: { workspace: pathRef(input.workspace) } });
  const workspace = await client.call(renameWorkspace, {
    params: { workspace: id },
    body: { name: input.name },
  });
  if (out.json) {
    out.printJson(workspace);
    return undefined;
  }
  const reference = input.workspace.includes('/') ? shortRef(workspace, undefined) : workspace.name;
  out.print(`${input.workspace} is named ${reference}. In ssh: ${hostOn(context.server(), reference)}`);
  if (workspace.status === 'running')
    out.note('Open sessions go on. Inside, the host name changes with the next start.');
  return undefined;
}
