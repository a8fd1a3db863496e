import { randomUUID } from 'node:crypto';
import type { Client } from '@cde/api/client.ts';
import type { Template } from '@cde/api/templates.ts';
import { askPatienceMs, followPatienceMs, waitForBuild } from '../builds/follow.ts';
import { canAsk, choose } from '../command/ask.ts';
import type { Context } from '../command/context.ts';
import { line, type Result, result } from '../command/result.ts';
import { createWorkspace, getTemplate, getWorkspace, listTemplates } from '../connection/endpoints.ts';
import { usage } from '../failure/failure.ts';
import { homeId } from '../homes/homes.ts';
import { clean } from '../output/output.ts';
import { askForMissing, readParameters } from './parameters.ts';
import { shortRef } from './reference.ts';

export async function create(
  context: Context,
  input: {
    name: string;
    template: string | undefined;
    param: string[];
    paramFile: string | undefined;
    owner: string | undefined;
    home: string | undefined;
    start: boolean;
    wait: boolean;
  },
): Promise<Result> {
  const client = await context.client({ patienceMs: input.start && input.wait ? askPatienceMs : 5_000 });
  const template = await chooseTemplate(context, client, input.template);
  const declared = template.activeVersion.parameters;
  const given = await readParameters(declared, input);
  const parameters = { ...given, ...(await askForMissing(context, declared, given)) };
  const home = input.home === undefined ? undefined : await homeId(client, input.home);
  let workspace = await client.call(createWorkspace, {
    body: {
      name: input.name,
      template: template.name,
      parameters,
      start: input.start,
      ...(input.owner !== undefined && { owner: input.owner }),
      ...(home !== undefined && { home }),
    },
    idempotencyKey: randomUUID(),
  });
  const name = input.owner === undefined ? workspace.name : shortRef(workspace, undefined);
  if (workspace.latestBuild && input.start && input.wait) {
    // The build continues while the server restarts or its database is unreachable.
    const patient = await context.client({ patienceMs: followPatienceMs });
    await waitForBuild(context, patient, name, workspace.latestBuild);
    workspace = await patient.call(getWorkspace, { params: { workspace: workspace.id } });
  }
  return result(workspace, () => [
    line(
      !input.start
        ? `${name} is created. Start it: cde start ${name}`
        : !input.wait
          ? `${name} is created and starting. Follow it: cde logs ${name} --follow`
          : `${name} is running. Connect: cde ssh ${name}`,
    ),
  ]);
}

async function chooseTemplate(context: Context, client: Client, name: string | undefined): Promise<Template> {
  if (name !== undefined) return client.call(getTemplate, { params: { template: name } });
  const { items } = await client.call(listTemplates, { query: { limit: 100 } });
  if (items.length === 1) return items[0]!;
  if (items.length > 1 && canAsk(context)) {
    const options = items.map((each) => ({ value: each.name, label: clean(each.title) }));
    const chosen = await choose(context, 'Which template?', options);
    return items.find((each) => each.name === chosen)!;
  }
  throw usage(
    items.length === 0 ? 'There are no templates.' : 'Which template? There are several.',
    items.length === 0
      ? 'Publish one: cde template push FOLDER'
      : `Add --template with one of: ${items.map((one) => one.name).join(', ')}`,
  );
}
