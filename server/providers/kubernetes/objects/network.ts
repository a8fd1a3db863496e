import { lookup } from 'node:dns/promises';
import type { Kube } from '../api/models.ts';

/** What pods connect to: addresses and a port, or a namespace of the same cluster. */
export type Destination = { cidr: string; port: number } | { namespace: string };

type PolicySpec = NonNullable<Kube<'NetworkPolicy'>['spec']>;
type EgressRule = NonNullable<PolicySpec['egress']>[number];

/** Cloud metadata services, which hand out the credentials of the node. */
const metadataServices = { v4: '169.254.169.254/32', v6: 'fd00:ec2::254/128' };

/**
 * The spec of the namespace's NetworkPolicy. Ingress: only from the namespace itself. Egress: everything but the
 * cloud's metadata service (`all`), or only DNS, the namespace itself and `reach` (`namespace`).
 */
export function networkPolicy(egress: 'all' | 'namespace', reach: readonly Destination[]): PolicySpec {
  const dns = {
    ports: [
      { protocol: 'UDP', port: 53 },
      { protocol: 'TCP', port: 53 },
    ],
  };
  const ownNamespace = { to: [{ podSelector: {} }] };
  const internet = {
    to: [
      { ipBlock: { cidr: '0.0.0.0/0', except: [metadataServices.v4] } },
      { ipBlock: { cidr: '::/0', except: [metadataServices.v6] } },
    ],
  };
  return {
    podSelector: {},
    policyTypes: ['Ingress', 'Egress'],
    ingress: [{ from: [{ podSelector: {} }] }],
    egress: [dns, ownNamespace, ...(egress === 'all' ? [internet] : reach.map(egressRule))],
  };
}

/** The egress rule that allows a destination. */
export const egressRule = (to: Destination): EgressRule =>
  'namespace' in to
    ? { to: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': to.namespace } } }] }
    : { to: [{ ipBlock: { cidr: to.cidr } }], ports: [{ protocol: 'TCP', port: to.port }] };

/**
 * The destinations of URLs as they resolve now. One that does not resolve is left out: the agent could not reach it
 * either. A Service of the cluster becomes its namespace, because the pods behind it change.
 */
export async function destinationsOf(urls: readonly string[]): Promise<Destination[]> {
  const found = new Map<string, Destination>();
  for (const text of new Set(urls)) {
    const { hostname, protocol, port } = new URL(text);
    const service = /^[^.]+\.([^.]+)\.svc(\.|$)/.exec(hostname);
    if (service) {
      found.set(service[1]!, { namespace: service[1]! });
      continue;
    }
    const host = hostname.replace(/^\[|\]$/g, '');
    for (const { address, family } of await lookup(host, { all: true }).catch(() => [])) {
      const cidr = `${address}/${family === 6 ? 128 : 32}`;
      const number = Number(port) || (protocol === 'http:' || protocol === 'ws:' ? 80 : 443);
      found.set(`${cidr} ${number}`, { cidr, port: number });
    }
  }
  return [...found.values()];
}
