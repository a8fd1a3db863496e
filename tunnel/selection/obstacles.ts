import { configuredProxy } from '../network/proxy.ts';
import type { PathKind } from '../pipe/path.ts';
import { isBetter } from './choose.ts';
import type { PathMeasure } from './history.ts';

/** What a session knows of paths other than the active one. */
export interface PathOutlook {
  /** The kinds that the agent offers; null if its release offers none, undefined until it has answered. */
  offered: readonly PathKind[] | null | undefined;
  /** The agent's own addresses, HOST:PORT. */
  addresses: readonly string[];
  isSearchingUdp: boolean;
  /** Shortest round trip first. */
  measured: readonly PathMeasure[];
}

/** Why a session does not use a path of some kind. */
export interface Obstacle {
  kind: PathKind;
  code:
    | 'forbidden'
    | 'not-requested'
    | 'agent-outdated'
    | 'not-offered'
    | 'no-address'
    | 'unreachable'
    | 'not-better'
    | 'moving'
    | 'searching'
    | 'unknown';
  /** One sentence, without a full stop. */
  text: string;
  /** What could remove it; null if nothing needs to be done. */
  fix: string | null;
}

const directKinds = ['direct-tcp', 'direct-udp'] as const;
const ms = (value: number) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;

/**
 * Lists what keeps a session from a better path, for each kind that it does not use. A direct path by TCP has nothing
 * above it. `allowed`: the kinds of the ticket; `requested`: those that the user wants.
 */
export function findObstacles(options: {
  active: { kind: PathKind; rttMs: number };
  allowed: readonly PathKind[];
  requested: readonly PathKind[];
  outlook: PathOutlook | null;
}): Obstacle[] {
  const { active, outlook } = options;
  const better = active.kind === 'direct-tcp' ? [] : directKinds.filter((kind) => kind !== active.kind);
  return better.map((kind) => ({ kind, ...obstacleOf(kind, options, outlook) }));
}

function obstacleOf(
  kind: 'direct-tcp' | 'direct-udp',
  { active, allowed, requested }: Parameters<typeof findObstacles>[0],
  outlook: PathOutlook | null,
): Omit<Obstacle, 'kind'> {
  if (!allowed.includes(kind))
    return {
      code: 'forbidden',
      text: 'forbidden for this workspace',
      fix: 'An administrator can allow it: the setting --paths of the server, or connection.paths of the template',
    };
  if (!requested.includes(kind))
    return { code: 'not-requested', text: 'excluded by --path', fix: 'Leave out --path' };
  if (!outlook || outlook.offered === undefined)
    return { code: 'unknown', text: 'the agent has not yet said how it can be reached', fix: null };
  if (outlook.offered === null)
    return {
      code: 'agent-outdated',
      text: 'the agent is of an earlier release that offers no direct paths',
      fix: 'Restart the workspace',
    };
  const measures = outlook.measured.filter((each) => each.kind === kind);
  if (!outlook.offered.includes(kind)) {
    const failed = measures.find(({ error }) => error)?.error;
    return kind === 'direct-udp'
      ? {
          code: 'not-offered',
          text:
            failed ?? 'the agent cannot use UDP: its machine does not support it, or its server forbids it',
          fix: null,
        }
      : { code: 'not-offered', text: 'the agent does not offer it', fix: null };
  }
  if (kind === 'direct-tcp' && outlook.addresses.length === 0)
    return {
      code: 'no-address',
      text: 'the agent has no address that could be reached from outside',
      fix: 'An administrator can give it one: connection.direct of the template',
    };
  const reached = measures.find(({ rttMs }) => rttMs !== null);
  if (reached) return comparison(active, reached as PathMeasure & { rttMs: number });
  const failures = measures.flatMap(({ via, error }) => (error ? [{ via, error }] : []));
  if (failures.length > 0) return unreachable(kind, failures);
  if (kind === 'direct-udp' && outlook.isSearchingUdp)
    return { code: 'searching', text: 'a path is still being looked for', fix: null };
  return { code: 'unknown', text: 'not measured yet', fix: null };
}

function comparison(
  active: { kind: PathKind; rttMs: number },
  other: PathMeasure & { rttMs: number },
): Omit<Obstacle, 'kind'> {
  const both = `${ms(other.rttMs)} by ${other.via}, and ${ms(active.rttMs)} now`;
  return isBetter(active, other)
    ? { code: 'moving', text: `it is better: ${both}; the session moves once that is certain`, fix: null }
    : { code: 'not-better', text: `reachable, but not better by enough: ${both}`, fix: null };
}

function unreachable(
  kind: 'direct-tcp' | 'direct-udp',
  failures: { via: string; error: string }[],
): Omit<Obstacle, 'kind'> {
  const text = failures
    .map(({ via, error }) => (kind === 'direct-udp' || error.includes(via) ? error : `${via}: ${error}`))
    .join('; ');
  const proxy = configuredProxy();
  const fix =
    kind === 'direct-tcp'
      ? 'A firewall or network policy between this machine and the workspace must admit TCP to that address'
      : proxy
        ? `UDP bypasses the proxy ${proxy.place}, so the firewall must admit it: cde netcheck shows whether it does`
        : 'Find out whether UDP is blocked, or which NAT is in between: cde netcheck';
  return { code: 'unreachable', text, fix };
}
