import type { Client } from '@cde/api/client.ts';
import type { Build } from '@cde/api/workspaces.ts';
import { getWorkspace, listBuilds } from '../connection/endpoints.ts';
import { readAll } from '../connection/pages.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure } from '../failure/failure.ts';
import { pathRef } from './reference.ts';

/** A build of a workspace by its number, or the latest. Throws `build-not-found`. */
export async function findBuild(
  client: Client,
  reference: string,
  number: number | undefined,
): Promise<Build> {
  const params = { workspace: pathRef(reference) };
  if (number === undefined) {
    const { latestBuild } = await client.call(getWorkspace, { params });
    if (latestBuild) return latestBuild;
    throw new Failure('build-not-found', `${reference} was never built.`, {
      exitCode: exitCodes.notFound,
      hint: `Start it: cde start ${reference}`,
    });
  }
  const all = await readAll((query) => client.call(listBuilds, { params, query }));
  const found = all.find((build) => build.number === number);
  if (found) return found;
  throw new Failure('build-not-found', `${reference} has no build ${number}.`, {
    exitCode: exitCodes.notFound,
    hint: `List them: cde builds ${reference}`,
  });
}
