import { randomUUID } from 'node:crypto';
import type { Client } from '@cde/api/client.ts';
import type { ParameterValues } from '@cde/api/template-parameters.ts';
import type { Build } from '@cde/api/workspaces.ts';
import { askPatienceMs, followPatienceMs, waitForBuild } from '../builds/follow.ts';
import { makeProgress } from '../builds/progress.ts';
import { canAsk, confirm } from '../command/ask.ts';
import type { Context } from '../command/context.ts';
import { line, result } from '../command/result.ts';
import {
  deleteWorkspace,
  getTemplate,
  getWorkspace,
  restartWorkspace,
  startWorkspace,
  stopWorkspace,
  updateWorkspace,
} from '../connection/endpoints.ts';
import { type Failure, toFailure } from '../failure/failure.ts';
import { render } from '../output/render.ts';
import { askForMissing, readParameters } from './parameters.ts';
import { pathRef } from './reference.ts';

interface Workspaces {
  workspaces: string[];
  wait: boolean;
}

type BuildRequest = (client: Client, reference: string) => Promise<Build | undefined>;

/** Requests a build of each workspace concurrently and waits for them. A failed one does not stop the others. */
async function change(
  context: Context,
  { workspaces, wait }: Workspaces,
  words: { inProgress: string; done: string; already?: (name: string) => string },
  ask: BuildRequest,
): Promise<number> {
  const { out } = context;
  const client = await context.client({ patienceMs: wait ? askPatienceMs : 5_000 });
  const patient = await context.client({ patienceMs: followPatienceMs });
  const progress = makeProgress(out);
  const failures: Failure[] = [];
  const results = await Promise.all(
    [...new Set(workspaces)].map(async (name) => {
      try {
        const build = await ask(client, name);
        // A finished build means that the workspace was already in this state.
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
  const good = results.filter((one) => one !== null);
  const builds = good.map(({ build }) => build).filter((build) => build !== undefined);
  const view = () =>
    good.map(({ name, already }) =>
      line(
        already
          ? (words.already?.(name) ?? `${name} is already ${words.done}.`)
          : wait
            ? `${name} is ${words.done}.`
            : `${name} is ${words.inProgress}. Follow it: cde logs ${name} --follow`,
      ),
    );
  // Before the failures: some workspaces may have succeeded.
  await render(out, result(builds, view));
  for (const failure of failures.slice(1)) out.fail(failure);
  if (failures[0]) throw failures[0];
  return 0;
}

export function start(context: Context, input: Workspaces) {
  return change(context, input, { inProgress: 'starting', done: 'running' }, (client, reference) =>
    client.call(startWorkspace, { params: { workspace: pathRef(reference) }, idempotencyKey: randomUUID() }),
  );
}

export function stop(context: Context, input: Workspaces) {
  return change(context, input, { inProgress: 'stopping', done: 'stopped' }, (client, reference) =>
    client.call(stopWorkspace, { params: { workspace: pathRef(reference) }, idempotencyKey: randomUUID() }),
  );
}

export function restart(context: Context, input: Workspaces) {
  return change(context, input, { inProgress: 'restarting', done: 'running' }, (client, reference) =>
    client.call(restartWorkspace, {
      params: { workspace: pathRef(reference) },
      idempotencyKey: randomUUID(),
    }),
  );
}

interface UpdateInput extends Workspaces {
  param: string[];
  paramFile: string | undefined;
  force: boolean;
}

export async function update(context: Context, input: UpdateInput) {
  const words = {
    inProgress: 'being updated',
    done: 'running, up to date',
    already: (name: string) => `${name} is up to date. To rebuild it anyway: cde update ${name} --force`,
  };
  const isOnlyOne = new Set(input.workspaces).size === 1;
  return change(context, input, words, async (client, reference) => {
    const params = { workspace: pathRef(reference) };
    const parameters = await readChanges(context, client, reference, input, isOnlyOne);
    return client.call(updateWorkspace, {
      params,
      body: { ...(parameters && { parameters }), ...(input.force && { force: true }) },
      idempotencyKey: randomUUID(),
    });
  });
}

/** The parameters of an update. At a terminal, prompts for those that only the new version requires. */
async function readChanges(
  context: Context,
  client: Client,
  reference: string,
  input: UpdateInput,
  mayAsk: boolean,
): Promise<ParameterValues | undefined> {
  const isChanged = input.param.length > 0 || input.paramFile !== undefined;
  const workspace = await client.call(getWorkspace, { params: { workspace: pathRef(reference) } });
  if (!isChanged && !workspace.outdated) return undefined;
  const template = await client.call(getTemplate, { params: { template: workspace.template } });
  const declared = template.activeVersion.parameters;
  const given = isChanged ? await readParameters(declared, input) : {};
  if (!mayAsk || !canAsk(context)) return isChanged ? given : undefined;
  const asked = await askForMissing(context, declared, { ...workspace.parameters, ...given });
  return isChanged || Object.keys(asked).length > 0 ? { ...given, ...asked } : undefined;
}

export async function remove(context: Context, input: Workspaces & { yes: boolean; discardHome: boolean }) {
  if (!input.yes) await confirmRemoval(context, input);
  return change(context, input, { inProgress: 'being deleted', done: 'deleted' }, (client, reference) =>
    client.call(deleteWorkspace, {
      params: { workspace: pathRef(reference) },
      query: { home: input.discardHome ? 'discard' : 'keep' },
    }),
  );
}

/** Checks that all of them exist before it asks. */
async function confirmRemoval(context: Context, input: Workspaces & { discardHome: boolean }): Promise<void> {
  const client = await context.client();
  await Promise.all(
    input.workspaces.map((name) => client.call(getWorkspace, { params: { workspace: pathRef(name) } })),
  );
  const what = input.workspaces.join(', ');
  await confirm(
    context,
    input.discardHome
      ? `Delete ${what} and everything in the home permanently?`
      : `Delete ${what}? The home is retained for the grace period.`,
    false,
  );
}
