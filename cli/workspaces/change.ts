import { randomUUID } from 'node:crypto';
import type { Client } from '@cde/api/client.ts';
import type { Build } from '@cde/api/workspaces.ts';
import { confirm } from '../ask.ts';
import { followPatienceMs, waitForBuild } from '../builds/follow.ts';
import { makeProgress } from '../builds/progress.ts';
import type { Context } from '../context.ts';
import {
  deleteWorkspace,
  getTemplate,
  getWorkspace,
  restartWorkspace,
  startWorkspace,
  stopWorkspace,
  updateWorkspace,
} from '../endpoints.ts';
import { type Failure, toFailure } from '../failure.ts';
import { readParameters } from './parameters.ts';
import { pathRef } from './reference.ts';

interface Several {
  workspaces: string[];
  wait: boolean;
}

type Ask = (client: Client, reference: string) => Promise<Build | undefined>;

/** Asks for a build of each workspace, all at once, and waits for them; one that fails does not stop the others. */
async function change(
  context: Context,
  { workspaces, wait }: Several,
  words: { under: string; done: string },
  ask: Ask,
): Promise<number> {
  const { out } = context;
  const client = await context.client({ patienceMs: 5_000 });
  const patient = await context.client({ patienceMs: followPatienceMs });
  const progress = makeProgress(out);
  const failures: Failure[] = [];
  const results = await Promise.all(
    [...new Set(workspaces)].map(async (name) => {
      try {
        const build = await ask(client, name);
        // A reply that is a build which has ended: the workspace was there already.
        if (!build || build.finishedAt) return { name, build, already: true };
        if (!wait) return { name, build };
        return { name, build: await waitForBuild(context, patient, name, build, progress) };
      } catch (error) {
        failures.push(toFailure(context.signal.aborted ? (error ?? context.signal.reason) : error));
        return null;
      }
    }),
  );
  progress.finish();
  const good = results.filter((result) => result !== null);
  if (out.json) out.printJson(good.map(({ build }) => build).filter((build) => build !== undefined));
  else
    for (const { name, already } of good)
      out.print(
        already
          ? `${name} is ${words.done} already.`
          : wait
            ? `${name} is ${words.done}.`
            : `${name} is ${words.under}. Follow it: cde logs ${name} --follow`,
      );
  for (const failure of failures.slice(1)) out.fail(failure);
  if (failures[0]) throw failures[0];
  return 0;
}

export function start(context: Context, input: Several) {
  return change(context, input, { under: 'starting', done: 'running' }, (client, reference) =>
    client.call(startWorkspace, { params: { workspace: pathRef(reference) }, idempotencyKey: randomUUID() }),
  );
}

export function stop(context: Context, input: Several) {
  return change(context, input, { under: 'stopping', done: 'stopped' }, (client, reference) =>
    client.call(stopWorkspace, { params: { workspace: pathRef(reference) }, idempotencyKey: randomUUID() }),
  );
}

export function restart(context: Context, input: Several) {
  return change(context, input, { under: 'restarting', done: 'running' }, (client, reference) =>
    client.call(restartWorkspace, {
      params: { workspace: pathRef(reference) },
      idempotencyKey: randomUUID(),
    }),
  );
}

export function update(
  context: Context,
  input: Several & { param: string[]; paramFile: string | undefined },
) {
  const changed = input.param.length > 0 || input.paramFile !== undefined;
  return change(
    context,
    input,
    { under: 'being updated', done: 'running, up to date' },
    async (client, reference) => {
      const params = { workspace: pathRef(reference) };
      const template = changed ? (await client.call(getWorkspace, { params })).template : null;
      const declared =
        template === null
          ? []
          : (await client.call(getTemplate, { params: { template } })).activeVersion.parameters;
      return client.call(updateWorkspace, {
        params,
        body: changed ? { parameters: await readParameters(declared, input) } : {},
        idempotencyKey: randomUUID(),
      });
    },
  );
}

export async function remove(context: Context, input: Several & { yes: boolean; discardHome: boolean }) {
  const what = input.workspaces.join(', ');
  await confirm(
    context,
    input.discardHome
      ? `Delete ${what}, with everything in the home, for good?`
      : `Delete ${what}? The home is kept for the grace period.`,
    input.yes,
  );
  return change(context, input, { under: 'being deleted', done: 'deleted' }, (client, reference) =>
    client.call(deleteWorkspace, {
      params: { workspace: pathRef(reference) },
      query: { home: input.discardHome ? 'discard' : 'keep' },
    }),
  );
}
