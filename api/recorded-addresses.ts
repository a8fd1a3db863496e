// Without zod, for the CLI.

/**
 * How much is kept of the addresses of direct paths in recordings. `full`: HOST:PORT. `network`: the network, as a /24 or
 * /48. `none`: nothing.
 */
export const addressPolicies = ['full', 'network', 'none'] as const;
export type AddressPolicy = (typeof addressPolicies)[number];

/** The address of a direct path as far as it is kept. What is no numeric address has no network. */
export function keptAddress(address: string, policy: AddressPolicy): string {
  if (policy === 'full') return address;
  if (policy === 'none') return '';
  const v4 = /^(\d{1,3}\.\d{1,3}\.\d{1,3})\.\d{1,3}(:\d+|\/24)?$/.exec(address);
  if (v4) return `${v4[1]}.0/24`;
  const v6 = /^\[?([0-9a-fA-F:]+(?:\.\d+)*)(%[^\]]*)?\]?(:\d+|\/48)?$/.exec(address);
  return v6 ? v6Network(v6[1]!) : '';
}

/** `2001:db8:1::/48`. */
function v6Network(address: string): string {
  const [head = '', tail] = address.split('::');
  const groups = head === '' ? [] : head.split(':');
  if (tail === undefined ? groups.length !== 8 : groups.length > 7) return '';
  const after = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = Array.from({ length: Math.max(0, 8 - groups.length - after.length) }, () => '0');
  const network = [...groups, ...zeros, ...after].slice(0, 3);
  return `${network.map((group) => Number.parseInt(group, 16).toString(16)).join(':')}::/48`;
}

type Path = { kind: string; via: string };
type Recorded = { path?: Path | null };

/** Windows or events with their addresses as far as they are kept. The URL of a satellite is not an address of a person. */
export const withKeptAddresses = <T extends object>(rows: readonly T[], policy: AddressPolicy): T[] =>
  rows.map((row) => {
    const { path } = row as Recorded;
    if (policy === 'full' || !path || path.kind === 'relay') return row;
    return { ...row, path: { ...path, via: keptAddress(path.via, policy) } };
  });
