import { randomUUID } from 'node:crypto';
import type { Build } from '@cde/api/workspaces.ts';
import type { Context } from '../command/context.ts';
import { line, type Result, result, table } from '../command/result.ts';
import { cancelBuild, listBuilds } from '../connection/endpoints.ts';
import { readAll } from '../connection/pages.ts';
import { clean } from '../output/output.ts';
import { duration, relative } from '../output/times.ts';
import { findBuild } from './find-build.ts';
import { pathRef } from './reference.ts';
import { paintBuildStatus } from './status.ts';

export async function builds(
  context: Context,
  input: { workspace: string; limit: number | undefined },
): Promise<Result> {
  const client = await context.client();
  const params = { workspace: pathRef(input.workspace) };
  const rows = await readAll((query) => client.call(listBuilds, { params, query }), input.limit ?? 20);
  return result(rows, () => [
    table<Build>(
      [
        { title: 'BUILD', cell: (row) => String(row.number) },
        { title: 'TRANSITION', cell: (row) => row.transition },
        { title: 'STATUS', cell: (row, c) => paintBuildStatus(row.status, c) },
        { title: 'TEMPLATE', cell: (row) => `v${row.templateVersion}` },
        { title: 'BY', cell: (row) => row.initiator },
        { title: 'TOOK', cell: buildDuration },
        { title: 'WHEN', cell: (row) => relative(row.createdAt), plain: (row) => row.createdAt },
        {
          title: 'REASON',
          cell: (row, c) => (row.error ? c.red(clean(row.error.message)) : c.dim(clean(row.reason))),
          plain: (row) => row.error?.message ?? row.reason,
        },
      ],
      rows,
      `${input.workspace} has no builds. Start it: cde start ${input.workspace}`,
    ),
  ]);
}

function buildDuration(build: Build): string {
  return build.finishedAt ? duration(Date.parse(build.finishedAt) - Date.parse(build.createdAt)) : '';
}

export async function cancel(
  context: Context,
  input: { workspace: string; build: number | undefined },
): Promise<Result> {
  const client = await context.client({ patienceMs: 5_000 });
  const found = await findBuild(client, input.workspace, input.build);
  const build = await client.call(cancelBuild, {
    params: { build: found.id },
    idempotencyKey: randomUUID(),
  });
  return result(build, () => [line(`Build ${build.number} of ${input.workspace} is being cancelled.`)]);
}
