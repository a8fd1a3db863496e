import { randomUUID } from 'node:crypto';
import { confirm } from '../command/ask.ts';
import type { Context } from '../command/context.ts';
import { line, type Result, result } from '../command/result.ts';
import { adoptOrphan, listOrphans } from '../connection/endpoints.ts';
import { Failure } from '../failure/failure.ts';
import { clean } from '../output/output.ts';

/** Turns an orphaned home into a retained home of a user. */
export async function adopt(
  context: Context,
  input: {
    name: string;
    cluster: string | undefined;
    provider: string | undefined;
    owner: string | undefined;
    yes: boolean;
  },
): Promise<Result> {
  const client = await context.client();
  const { items } = await client.call(listOrphans);
  const found = items.filter(
    ({ kind, name, cluster, provider }) =>
      (kind === 'namespace' || kind === 'home') &&
      name === input.name &&
      (input.cluster === undefined || cluster === input.cluster) &&
      (input.provider === undefined || provider === input.provider),
  );
  const [orphan] = found;
  if (!orphan)
    throw new Failure('orphan-not-found', `There is no orphaned home ${input.name}.`, {
      actions: [{ kind: 'list-orphans' }],
    });
  if (found.length > 1)
    throw new Failure('orphan-not-found', `There are several orphaned homes ${input.name}.`, {
      hint: `Choose one: ${found
        .map(({ cluster, provider }) =>
          cluster === null ? `--provider ${provider}` : `--cluster ${cluster}`,
        )
        .join(', ')}`,
    });
  if (orphan.kind === 'namespace')
    await confirm(context, `Delete the namespace ${input.name}, and retain its home?`, input.yes);
  const adopted = await client.call(adoptOrphan, {
    body: {
      ...(orphan.cluster === null ? { provider: orphan.provider } : { cluster: orphan.cluster }),
      name: input.name,
      ...(input.owner !== undefined && { owner: input.owner }),
    },
    idempotencyKey: randomUUID(),
  });
  return result(adopted, () =>
    adopted.items.map((home) =>
      line(
        `The home of ${clean(home.owner)}/${clean(home.workspace)} is retained for ${clean(home.owner)} until ${home.keptUntil.slice(0, 10)}. Restore it: cde create ${clean(home.workspace)} --template NAME --home ${home.id}`,
      ),
    ),
  );
}
