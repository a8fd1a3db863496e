import { randomUUID } from 'node:crypto';
import type { Satellite } from '@cde/api/satellites.ts';
import { confirm } from '../ask.ts';
import type { Context } from '../context.ts';
import {
  addSatellite,
  drainSatellite,
  getSatellite,
  listSatellites,
  removeSatellite,
  setSatelliteWeb,
} from '../endpoints.ts';
import { usage } from '../failure.ts';
import { type Colors, clean } from '../output.ts';
import { relative } from '../times.ts';

function stateOf(satellite: Satellite, c: Colors): string {
  const { state } = satellite;
  if (state === 'online') return c.green(state);
  return state === 'away' ? c.red(state) : c.yellow(state);
}

const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;

export async function add(
  context: Context,
  input: { name: string; region: string | undefined },
): Promise<number | undefined> {
  const client = await context.client();
  const made = await client.call(addSatellite, {
    body: { name: input.name, ...(input.region !== undefined && { region: input.region }) },
  });
  if (context.out.json) context.out.printJson(made);
  else {
    context.out.print(made.token);
    context.out.note(
      `Shown only now. Where the satellite is to run: CDE_SATELLITE_TOKEN=… cde satellite start --server ${client.url} --url https://ITS-ADDRESS`,
    );
  }
  return undefined;
}

export async function list(context: Context): Promise<number | undefined> {
  const client = await context.client();
  const { items } = await client.call(listSatellites);
  if (context.out.json) {
    context.out.printJson(items);
    return undefined;
  }
  context.out.table<Satellite>(
    [
      { title: 'NAME', cell: (row, c) => c.bold(row.name) },
      { title: 'REGION', cell: (row) => clean(row.region) },
      { title: 'STATE', cell: stateOf },
      { title: 'SESSIONS', cell: (row) => String(row.load?.sessions ?? '') },
      { title: 'AGENTS', cell: (row) => String(row.load?.agents ?? '') },
      {
        title: 'TRAFFIC',
        cell: (row) => (row.load ? `${megabytes(row.load.bytesPerSecond)}/s` : ''),
        plain: (row) => String(row.load?.bytesPerSecond ?? ''),
      },
      { title: 'STUN', cell: (row) => (row.url === null ? '' : clean(row.stun ?? 'off')) },
      { title: 'VERSION', cell: (row) => clean(row.version ?? '') },
      { title: 'SEEN', cell: (row) => relative(row.seenAt), plain: (row) => row.seenAt ?? '' },
    ],
    items,
    'No satellites beside the one that the server carries.',
  );
  return undefined;
}

export async function show(context: Context, input: { satellite: string }): Promise<number | undefined> {
  const { out } = context;
  const client = await context.client();
  const satellite = await client.call(getSatellite, { params: { satellite: input.satellite } });
  if (out.json) {
    out.printJson(satellite);
    return undefined;
  }
  const { load } = satellite;
  out.fields([
    ['name', satellite.name],
    ['region', clean(satellite.region)],
    ['state', stateOf(satellite, out.colors)],
    ['url', satellite.url && clean(satellite.url)],
    ['stun', satellite.stun && clean(satellite.stun)],
    [
      'web',
      satellite.web === null
        ? 'off'
        : `terminals${satellite.web.portHost === null ? '' : `, ports under ${satellite.web.portHost}`}`,
    ],
    ['version', satellite.version && clean(satellite.version)],
    ['hostname', satellite.hostname && clean(satellite.hostname)],
    ['sessions', load && String(load.sessions)],
    ['agents', load && String(load.agents)],
    ['traffic', load && `${megabytes(load.bytesPerSecond)}/s`],
    ['memory', load && megabytes(load.memoryBytes)],
    ['loop delay', load && `${load.loopDelayMs} ms (p99)`],
    ['seen', out.terminal ? relative(satellite.seenAt) : satellite.seenAt],
    ['created', out.terminal ? relative(satellite.createdAt) : satellite.createdAt],
    ['id', satellite.id],
  ]);
  return undefined;
}

export async function drain(
  context: Context,
  input: { satellite: string; undo: boolean },
): Promise<number | undefined> {
  const client = await context.client();
  const satellite = await client.call(drainSatellite, {
    params: { satellite: input.satellite },
    body: { draining: !input.undo },
    idempotencyKey: randomUUID(),
  });
  if (context.out.json) context.out.printJson(satellite);
  else if (input.undo) context.out.print(`${satellite.name} serves again, within 15 s.`);
  else
    context.out.print(
      `${satellite.name} takes nobody new and sends its sessions elsewhere, within 15 s; see: cde satellite show ${satellite.name}`,
    );
  return undefined;
}

export async function web(
  context: Context,
  input: { satellite: string; off: boolean; portHost: string | undefined },
): Promise<number | undefined> {
  if (input.off && input.portHost !== undefined) throw usage('--off and --port-host do not go together.');
  const client = await context.client();
  const satellite = await client.call(setSatelliteWeb, {
    params: { satellite: input.satellite },
    body: { web: input.off ? null : { portHost: input.portHost ?? null } },
  });
  if (context.out.json) context.out.printJson(satellite);
  else if (satellite.web === null)
    context.out.print(`${satellite.name} serves browsers nothing any more, within 15 s.`);
  else
    context.out.print(
      `${satellite.name} serves terminals${satellite.web.portHost === null ? '' : `, and ports under ${satellite.web.portHost}`}, within 15 s. It reads what passes there.`,
    );
  return undefined;
}

export async function remove(
  context: Context,
  input: { satellite: string; yes: boolean },
): Promise<number | undefined> {
  const client = await context.client();
  if (!input.yes) await client.call(getSatellite, { params: { satellite: input.satellite } });
  await confirm(context, `Remove the satellite ${input.satellite}?`, input.yes);
  await client.call(removeSatellite, { params: { satellite: input.satellite } });
  if (context.out.json) context.out.printJson({ satellite: input.satellite, removed: true });
  else context.out.print(`The satellite ${input.satellite} is removed; it empties itself and ends.`);
  return undefined;
}
