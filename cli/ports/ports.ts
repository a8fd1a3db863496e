import type { PortLevel, WorkspacePort } from '@cde/api/ports.ts';
import type { Context } from '../command/context.ts';
import { line, note, type Result, result, table } from '../command/result.ts';
import { listPorts, sharePort, unsharePort } from '../connection/endpoints.ts';
import { usage } from '../failure/failure.ts';
import { clean } from '../output/output.ts';
import { pathRef } from '../workspaces/reference.ts';

export async function list(context: Context, input: { workspace: string }): Promise<Result> {
  const client = await context.client();
  const ports = await client.call(listPorts, { params: { workspace: pathRef(input.workspace) } });
  return result(ports, () => [
    table<WorkspacePort>(
      [
        { title: 'PORT', cell: (row, c) => c.bold(String(row.port)) },
        { title: 'PROCESS', cell: (row, c) => (row.listening ? clean(row.process ?? '') : c.dim('none')) },
        { title: 'SHARED WITH', cell: levelOf },
        { title: 'ADDRESS', cell: (row) => row.url ?? '' },
      ],
      ports.items.flatMap((port) => [
        port,
        ...port.elsewhere.map(({ url }) => ({ ...port, url, elsewhere: [] })),
      ]),
      ports.reportedAt === null
        ? 'The agent has not reported its ports yet.'
        : 'No ports. Programs that listen in the workspace appear here.',
    ),
  ]);
}

/** The effective level, and the chosen one if an administrator limits it. */
function levelOf({ level, limitedTo }: WorkspacePort): string {
  if (level === null) return 'nobody';
  return limitedTo === level ? level : `${limitedTo ?? 'nobody'} (${level} is not allowed here)`;
}

export async function share(
  context: Context,
  input: { workspace: string; port: string; level: string | undefined },
): Promise<Result> {
  const number = readPort(input.port);
  const client = await context.client();
  const port = await client.call(sharePort, {
    params: { workspace: pathRef(input.workspace), port: number },
    body: { level: (input.level ?? 'owner') as PortLevel },
  });
  return result(port, () => [
    line(port.url ?? ''),
    ...port.elsewhere.map(({ satellite, region, url }) =>
      note(`Through ${clean(satellite)}${region && `, ${clean(region)}`}: ${clean(url)}`),
    ),
    !port.listening && note(`The agent has not reported a program on port ${port.port} yet.`),
  ]);
}

export async function unshare(context: Context, input: { workspace: string; port: string }): Promise<Result> {
  const port = readPort(input.port);
  const client = await context.client();
  await client.call(unsharePort, { params: { workspace: pathRef(input.workspace), port } });
  return result({ port, level: null }, () => [
    note(`Port ${port} of ${input.workspace} is no longer shared.`),
  ]);
}

export function readPort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (port < 1 || port > 65535)
    throw usage(
      `${JSON.stringify(text)} is not a port.`,
      'A port is a number from 1 to 65535: cde ports WORKSPACE',
    );
  return port;
}
