import { dayCountText, policyName } from '@cde/api/idle-text.ts';
import type { Context } from '../command/context.ts';
import { line, note, type Result, result } from '../command/result.ts';
import { keepWorkspace } from '../connection/endpoints.ts';
import { pathRef } from '../workspaces/reference.ts';

export async function keep(context: Context, input: { workspace: string }): Promise<Result> {
  const client = await context.client();
  const after = await client.call(keepWorkspace, {
    params: { workspace: pathRef(input.workspace) },
    body: {},
  });
  const { deleteAfterDays } = after.policy;
  return result(after, () => [
    line(`${input.workspace} is kept. The days without a person count from now.`),
    deleteAfterDays !== null &&
      deleteAfterDays !== undefined &&
      note(
        `After ${dayCountText(deleteAfterDays)} without a person, ${policyName('delete')} deletes it. It is announced beforehand.`,
      ),
  ]);
}
