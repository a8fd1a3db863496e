import type { PortLevel, WorkspacePort } from '@cde/api/ports.ts';
import type { Context } from '../context.ts';
import { listPorts, sharePort, unsharePort } from '../endpoints.ts';
import { usage } from '../failure.ts';
import { clean } from '../output.ts';
import { pathRef } from '../workspaces/reference.ts';

export async function list(context: Context, input: { workspace: string }): Promise<number | undefined> {
  const { out } = context;
  const client = await context.client();
  const ports = await client.call(listPorts, { params: { workspace: pathRef(input.workspace) } });
  if (out.json) {
    out.printJson(ports);
    return undefined;
  }
  out.table<WorkspacePort>(
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
      ? 'The agent has not reported what listens.'
      : 'Nothing listens, and nothing is shared.',
  );
  return undefined;
}

/** What counts; and where an administrator allows less than was shared, that it is less. */
function levelOf({ level, limitedTo }: WorkspacePort): string {
  if (level === null) return 'nobody';
  return limitedTo === level ? level : `${limitedTo ?? 'nobody'} (${level} is not allowed here)`;
}

export async function share(
  context: Context,
  input: { workspace: string; port: string; level: string | undefined },
): Promise<number | undefined> {
  const { out } = context;
  const number = readPort(input.port);
  const client = await context.client();
  const port = await client.call(sharePort, {
    params: { workspace: pathRef(input.workspace), port: number },
    body: { level: (input.level ?? 'owner') as PortLevel },
  });
  if (out.json) out.printJson(port);
  else {
    out.print(port.url ?? '');
    for (const { satellite, region, url } of port.elsewhere)
      out.note(`Over ${clean(satellite)}${region && `, ${clean(region)}`}: ${clean(url)}`);
    if (!port.listening)
      out.note(`Nothing listens on port ${port.port} yet, as far as the agent has reported.`);
  }
  return undefined;
}

export async function unshare(
  context: Context,
  input: { workspace: string; port: string },
): Promise<number | undefined> {
  const { out } = context;
  const port = readPort(input.port);
  const client = await context.client();
  await client.call(unsharePort, { params: { workspace: pathRef(input.workspace), port } });
  if (out.json) out.printJson({ port, level: null });
  else out.note(`Port ${port} of ${input.workspace} is shared with nobody.`);
  return undefined;
}

export function readPort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (port < 1 || port > 65535)
    throw usage(
      `${JSON.stringify(text)} is no port.`,
      'A port is a number from 1 to 65535: cde ports WORKSPACE',
    );
  return port;
}
