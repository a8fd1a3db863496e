import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { Cluster } from '@cde/api/clusters.ts';
import { confirm } from '../command/ask.ts';
import type { Context } from '../command/context.ts';
import { fields, line, type Result, result, table } from '../command/result.ts';
import {
  addCluster,
  getCluster,
  listClusters,
  removeCluster,
  updateCluster,
} from '../connection/endpoints.ts';
import { usage } from '../failure/failure.ts';
import { adviceLines } from '../output/actions.ts';
import { type Colors, clean } from '../output/output.ts';
import { relative } from '../output/times.ts';

interface Settings {
  kubeconfig: string | undefined;
  inCluster: boolean;
  region: string | undefined;
  label: string[];
  default: boolean;
  publicEndpoint: string | undefined;
}

function stateOf({ state }: Cluster, c: Colors): string {
  if (state === 'ready') return c.green(state);
  return state === 'away' ? c.red(state) : c.yellow(state);
}

async function read(input: Settings) {
  const labels = input.label.map((each) => {
    const at = each.indexOf('=');
    if (at < 1) throw usage(`--label ${each} is not NAME=VALUE.`, 'For example --label gpu=a100');
    return [each.slice(0, at), each.slice(at + 1)] as const;
  });
  let kubeconfig: string | undefined;
  if (input.kubeconfig !== undefined)
    kubeconfig = await readFile(input.kubeconfig, 'utf8').catch((error: Error) => {
      throw usage(`${input.kubeconfig} cannot be read: ${error.message}`, 'Give the path of a kubeconfig.');
    });
  return {
    ...(kubeconfig !== undefined && { kubeconfig }),
    ...(input.inCluster && { inCluster: true }),
    ...(input.region !== undefined && { region: input.region }),
    ...(labels.length > 0 && { labels: Object.fromEntries(labels) }),
    ...(input.default && { isDefault: true }),
    ...(input.publicEndpoint !== undefined && { publicEndpoint: input.publicEndpoint }),
  };
}

export async function add(context: Context, input: Settings & { name: string }): Promise<Result> {
  if (input.kubeconfig === undefined && !input.inCluster)
    throw usage('A cluster needs credentials.', 'Add --kubeconfig FILE, or --in-cluster.');
  const client = await context.client();
  const cluster = await client.call(addCluster, {
    body: { name: input.name, ...(await read(input)) },
    idempotencyKey: randomUUID(),
  });
  return result(cluster, () => [
    line(
      `${cluster.name} is added: Kubernetes ${cluster.version} at ${cluster.endpoint}${cluster.isDefault ? ', the default' : ''}.`,
    ),
  ]);
}

export async function list(context: Context): Promise<Result> {
  const client = await context.client();
  const { items } = await client.call(listClusters);
  return result(items, () => [
    table<Cluster>(
      [
        { title: 'NAME', cell: (row, c) => c.bold(row.name) },
        { title: 'REGION', cell: (row) => clean(row.region) },
        { title: 'STATE', cell: stateOf },
        { title: 'DEFAULT', cell: (row) => (row.isDefault ? 'yes' : '') },
        { title: 'WORKSPACES', cell: (row) => String(row.workspaces) },
        { title: 'VERSION', cell: (row) => clean(row.version ?? '') },
        { title: 'SEEN', cell: (row) => relative(row.seenAt), plain: (row) => row.seenAt ?? '' },
        { title: 'REASON', cell: (row) => clean(row.reason ?? '') },
      ],
      items,
      'No clusters. Add one: cde cluster add NAME --kubeconfig FILE',
    ),
  ]);
}

export async function show(context: Context, input: { cluster: string }): Promise<Result> {
  const client = await context.client();
  const cluster = await client.call(getCluster, { params: { cluster: input.cluster } });
  return result(
    cluster,
    ({ colors }) => [
      fields([
        ['name', cluster.name],
        ['region', clean(cluster.region)],
        ['state', stateOf(cluster, colors)],
        ['reason', cluster.reason && clean(cluster.reason)],
        ['default', cluster.isDefault ? 'yes' : 'no'],
        [
          'labels',
          Object.entries(cluster.labels)
            .map(([name, value]) => clean(`${name}=${value}`))
            .join(' '),
        ],
        ['version', cluster.version && clean(cluster.version)],
        ['endpoint', clean(cluster.endpoint)],
        ['public', cluster.publicEndpoint && clean(cluster.publicEndpoint)],
        ['workspaces', String(cluster.workspaces)],
        ['id', cluster.id],
      ]),
      ...cluster.checks.flatMap((check) => [
        line(`${check.ok ? colors.green('ok  ') : colors.red('no  ')}${check.name}: ${clean(check.message)}`),
        ...adviceLines(check).map((text) => line(`    ${colors.cyan('→')} ${clean(text)}`)),
      ]),
    ],
    cluster.checks.every(({ ok }) => ok) ? 0 : 1,
  );
}

export async function set(context: Context, input: Settings & { cluster: string }): Promise<Result> {
  const body = await read(input);
  if (Object.keys(body).length === 0)
    throw usage('There is nothing to change.', 'See the options: cde cluster set --help');
  const client = await context.client();
  const cluster = await client.call(updateCluster, { params: { cluster: input.cluster }, body });
  return result(cluster, () => [line(`${cluster.name} is changed.`)]);
}

export async function remove(context: Context, input: { cluster: string; yes: boolean }): Promise<Result> {
  const client = await context.client();
  if (!input.yes) await client.call(getCluster, { params: { cluster: input.cluster } });
  await confirm(context, `Remove the cluster ${input.cluster}?`, input.yes);
  await client.call(removeCluster, { params: { cluster: input.cluster } });
  return result({ cluster: input.cluster, removed: true }, () => [
    line(`${input.cluster} is removed. Nothing on it was deleted.`),
  ]);
}
