import type { Node, NodeKernelProfile, NodeResources } from '@cde/api/nodes.ts';
import { bytes } from '@cde/api/sizes.ts';
import type { Context } from '../command/context.ts';
import { fields, line, note, type Result, result, table } from '../command/result.ts';
import { getNode, listNodes } from '../connection/endpoints.ts';
import { readAll } from '../connection/pages.ts';
import { type Colors, clean } from '../output/output.ts';
import { relative } from '../output/times.ts';

function stateOf({ state, schedulable }: Node, c: Colors): string {
  const colored = state === 'ready' ? c.green(state) : state === 'unknown' ? c.yellow(state) : c.red(state);
  return schedulable ? colored : `${colored}, ${c.yellow('cordoned')}`;
}

function profileState({ state, reason }: NodeKernelProfile, c: Colors): string {
  return state === 'ready' ? c.green(state) : c.red(reason ? clean(reason) : state);
}

const amount = (value: number | null, text: (value: number) => string) => (value === null ? '' : text(value));

/** `3.9 of 4`: what pods can use, and what the node has. */
function share(
  { allocatable, capacity }: Node,
  key: keyof NodeResources,
  text: (value: number) => string = String,
): string {
  const [usable, all] = [allocatable[key], capacity[key]];
  return usable === null || usable === all ? amount(all, text) : `${text(usable)} of ${amount(all, text)}`;
}

const lastDrift = ({ kernelProfiles }: Node) =>
  kernelProfiles
    .flatMap((profile) => profile.lastDrift?.at ?? [])
    .sort()
    .at(-1) ?? null;

export async function list(
  context: Context,
  input: {
    cluster: string | undefined;
    workspace: string | undefined;
    profile: string | undefined;
    problems: boolean;
  },
): Promise<Result> {
  const client = await context.client();
  const { cluster, workspace, profile } = input;
  const hasOtherFilters = input.problems || cluster !== undefined || profile !== undefined;
  let unseen: { name: string; reason: string }[] = [];
  const items = await readAll(async (page) => {
    const reply = await client.call(listNodes, {
      query: {
        ...page,
        ...(cluster !== undefined && { cluster }),
        ...(workspace !== undefined && { workspace }),
        ...(profile !== undefined && { profile }),
        ...(input.problems && { show: 'problems' }),
      },
    });
    unseen = reply.unseen;
    return reply;
  });
  return result(items, () => [
    table<Node>(
      [
        { title: 'NAME', cell: (row, c) => c.bold(clean(row.name)) },
        { title: 'CLUSTER', cell: (row) => clean(row.cluster ?? `(${row.provider})`) },
        { title: 'STATE', cell: stateOf },
        { title: 'CPUS', cell: (row) => share(row, 'cpus') },
        { title: 'MEMORY', cell: (row) => share(row, 'memoryBytes', bytes) },
        { title: 'WORKSPACES', cell: (row) => String(row.workspaces) },
        {
          title: 'KERNEL PROFILES',
          cell: (row, c) =>
            row.kernelProfiles.map((one) => `${clean(one.name)} ${profileState(one, c)}`).join(', '),
        },
        {
          title: 'LAST DRIFT',
          cell: (row) => (lastDrift(row) === null ? '' : relative(lastDrift(row))),
          plain: (row) => lastDrift(row) ?? '',
        },
      ],
      items,
      workspace === undefined || hasOtherFilters
        ? 'No nodes match. Without options, all nodes are listed.'
        : `${workspace} runs on no node now. Start it: cde start ${workspace}`,
    ),
    ...unseen.map(({ name, reason }) =>
      note(`The nodes of ${clean(name)} may be missing or out of date: ${clean(reason)}`),
    ),
  ]);
}

export async function show(context: Context, input: { node: string }): Promise<Result> {
  const client = await context.client();
  const node = await client.call(getNode, { params: { node: input.node.replace('/', '~') } });
  return result(node, ({ colors, moment }) => [
    fields([
      ['name', clean(node.name)],
      ['cluster', node.cluster && clean(node.cluster)],
      ['provider', clean(node.provider)],
      ['state', stateOf(node, colors)],
      ['reason', node.reason && clean(node.reason)],
      ['pool', node.pool && clean(node.pool)],
      ['os', node.os && clean(node.os)],
      ['kernel', node.kernel && clean(node.kernel)],
      ['architecture', node.architecture && clean(node.architecture)],
      ['runtime', node.runtime && clean(node.runtime)],
      ['cpus', share(node, 'cpus')],
      ['memory', share(node, 'memoryBytes', bytes)],
      ['storage', share(node, 'storageBytes', bytes)],
      ['pods', share(node, 'pods')],
      ['workspaces', String(node.workspaces)],
      ['profiles', node.kernelFault && colors.red(clean(node.kernelFault))],
    ]),
    ...node.kernelProfiles.flatMap((profile) => [
      line(''),
      line(
        `kernel profile ${colors.bold(clean(profile.name))}: ${profileState(profile, colors)}${profile.since ? `, since ${moment(profile.since)}` : ''}`,
      ),
      ...(profile.message ? [line(`  ${clean(profile.message)}`)] : []),
      ...(profile.lastDrift
        ? [
            line(
              `  last drift ${moment(profile.lastDrift.at)}: ${clean(profile.lastDrift.sysctl)} was changed from ` +
                `${clean(profile.lastDrift.to)} to ${clean(profile.lastDrift.from)}` +
                (profile.lastDrift.by ? ` (${clean(profile.lastDrift.by)})` : ''),
            ),
          ]
        : []),
    ]),
    ...node.notRestored.map(({ message }) => line(colors.red(clean(message)))),
    line(''),
    table(
      [
        { title: 'WORKSPACE', cell: (row, c) => c.bold(`${row.owner}/${row.name}`) },
        { title: 'STATUS', cell: (row) => row.status },
      ],
      node.onNode,
      'No workspaces run on it.',
    ),
  ]);
}
