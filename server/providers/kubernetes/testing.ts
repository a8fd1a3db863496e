import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { makeConnections } from './api/connect.ts';
import type { ClusterRecord, Connections } from './api/connections.ts';

/** The kubeconfig of the cluster that tests run on: CDE_TEST_KUBECONFIG, else what `npm run kube:up` left. */
const testKubeconfig = (): string =>
  readFileSync(process.env.CDE_TEST_KUBECONFIG ?? join(homedir(), '.cache/cde/cluster/kubeconfig'), 'utf8');

export const quiet = { trace() {}, debug() {}, info() {}, warn() {}, error() {}, fatal() {} } as never;

/** Connections to the test cluster as `one`, by default with an installation of their own. */
export function testConnections(
  text = testKubeconfig(),
  installation = `t${randomUUID().slice(0, 8)}`,
): { connections: Connections; installation: string } {
  const record: ClusterRecord = {
    id: 'c1',
    name: 'one',
    region: 'eu',
    labels: {},
    isDefault: true,
    credentials: { kind: 'kubeconfig', text },
    publicEndpoint: null,
    revision: 1,
  };
  const connections = makeConnections({
    installation,
    log: quiet,
    source: { list: async () => [record], report: async () => {} },
  });
  return { connections, installation };
}
