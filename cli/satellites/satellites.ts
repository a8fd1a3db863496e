import { randomUUID } from 'node:crypto';
import type { Satellite } from '@cde/api/satellites.ts';
import { confirm } from '../command/ask.ts';
import type { Context } from '../command/context.ts';
import { fields, line, note, type Result, result, table } from '../command/result.ts';
import {
  addSatellite,
  drainSatellite,
  getSatellite,
  listSatellites,
  removeSatellite,
  setSatelliteWeb,
} from '../connection/endpoints.ts';
import { usage } from '../failure/failure.ts';
import { type Colors, clean } from '../output/output.ts';
import { relative } from '../output/times.ts';

function stateOf(satellite: Satellite, c: Colors): string {
  const { state } = satellite;
  if (state === 'online') return c.green(state);
  return state === 'away' ? c.red(state) : c.yellow(state);
}

const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;

export async function add(
  context: Context,
  input: { name: string; region: string | undefined },
): Promise<Result> {
  const client = await context.client();
  const made = await client.call(addSatellite, {
    body: { name: input.name, ...(input.region !== undefined && { region: input.region }) },
  });
  return result(made, () => [
    line(made.token),
    note(
      `This token is shown only once. On the machine of the satellite, run: CDE_SATELLITE_TOKEN=… cde satellite start --server ${client.url} --url https://ITS-ADDRESS`,
    ),
  ]);
}

export async function list(context: Context): Promise<Result> {
  const client = await context.client();
  const { items } = await client.call(listSatellites);
  return result(items, () => [
    table<Satellite>(
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
      'No satellites besides the embedded one. Add one: cde satellite add NAME',
    ),
  ]);
}

export async function show(context: Context, input: { satellite: string }): Promise<Result> {
  const client = await context.client();
  const satellite = await client.call(getSatellite, { params: { satellite: input.satellite } });
  const { load } = satellite;
  return result(satellite, ({ colors, moment }) => [
    fields([
      ['name', satellite.name],
      ['region', clean(satellite.region)],
      ['state', stateOf(satellite, colors)],
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
      ['seen', moment(satellite.seenAt)],
      ['created', moment(satellite.createdAt)],
      ['id', satellite.id],
    ]),
  ]);
}

export async function drain(context: Context, input: { satellite: string; undo: boolean }): Promise<Result> {
  const client = await context.client();
  const satellite = await client.call(drainSatellite, {
    params: { satellite: input.satellite },
    body: { draining: !input.undo },
    idempotencyKey: randomUUID(),
  });
  return result(satellite, () => [
    line(
      input.undo
        ? `${satellite.name} accepts sessions again within 15 seconds.`
        : `${satellite.name} is draining: within 15 seconds it accepts no new sessions and moves its own. Progress: cde satellite show ${satellite.name}`,
    ),
  ]);
}

export async function web(
  context: Context,
  input: { satellite: string; off: boolean; portHost: string | undefined },
): Promise<Result> {
  if (input.off && input.portHost !== undefined) throw usage('--off and --port-host exclude each other.');
  const client = await context.client();
  const satellite = await client.call(setSatelliteWeb, {
    params: { satellite: input.satellite },
    body: { web: input.off ? null : { portHost: input.portHost ?? null } },
  });
  const { name, web } = satellite;
  return result(satellite, () => [
    line(
      web === null
        ? `${name} stops serving browsers within 15 seconds.`
        : `${name} serves terminals${web.portHost === null ? '' : ` and ports under ${web.portHost}`} within 15 seconds. It sees their plain text.`,
    ),
  ]);
}

export async function remove(context: Context, input: { satellite: string; yes: boolean }): Promise<Result> {
  const client = await context.client();
  if (!input.yes) await client.call(getSatellite, { params: { satellite: input.satellite } });
  await confirm(context, `Remove the satellite ${input.satellite}?`, input.yes);
  await client.call(removeSatellite, { params: { satellite: input.satellite } });
  return result({ satellite: input.satellite, removed: true }, () => [
    line(`The satellite ${input.satellite} is removed. If it is running, it drains and stops.`),
  ]);
}
