import { usage } from '../../failure/failure.ts';

export interface PortSpec {
  protocol: 'tcp' | 'udp';
  local: number;
  host: string;
  remote: number;
}

/**
 * Reads `PORT`, `LOCAL:REMOTE`, `LOCAL:HOST:REMOTE`, with ranges (`8000-8003`, `9000-9003:8000-8003`), IPv6 hosts in
 * brackets, and `/udp` at the end. Throws a usage error. One entry for each port.
 */
export function parsePorts(text: string): PortSpec[] {
  const parts = /^(?:([\d-]+):)?(?:(\[[0-9a-fA-F:.]+\]|[^:[\]\s]+):)?([\d-]+)(?:\/(tcp|udp))?$/.exec(text);
  if (!parts || (parts[2] !== undefined && parts[1] === undefined)) throw invalidPorts(text);
  const remote = range(text, parts[3]!, 1);
  const local = parts[1] === undefined ? remote : range(text, parts[1], 0);
  if (local.length !== remote.length)
    throw usage(
      `${JSON.stringify(text)} has ranges of different lengths.`,
      'Write as many local ports as remote ones.',
    );
  const host = parts[2]?.replace(/^\[|\]$/g, '') ?? 'localhost';
  const protocol = parts[4] === 'udp' ? 'udp' : 'tcp';
  return remote.map((port, at) => ({ protocol, local: local[at]!, host, remote: port }));
}

/** A port of the workspace that leads to one seen from this machine. */
export interface ReverseSpec {
  /** 0: any free one. */
  remote: number;
  host: string;
  local: number;
}

/** Reads `PORT`, `REMOTE:LOCAL`, `REMOTE:HOST:LOCAL`, as ssh's -R: the workspace's port comes first. */
export function parseReversePorts(text: string): ReverseSpec[] {
  return parsePorts(text).map(({ protocol, local, host, remote }) => {
    if (protocol === 'udp')
      throw usage(`${JSON.stringify(text)}: only TCP leads from a workspace to this machine.`);
    return { remote: local, host, local: remote };
  });
}

function range(text: string, part: string, least: number): number[] {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(part);
  if (!match) throw invalidPorts(text);
  const from = Number(match[1]);
  const to = Number(match[2] ?? match[1]);
  if (from < least || to > 65535 || to < from || (from === 0 && to > 0))
    throw usage(
      `${JSON.stringify(part)} in ${JSON.stringify(text)} is no port and no range of ports.`,
      'Ports go from 1 to 65535.',
    );
  if (to - from >= 1000) throw usage(`${JSON.stringify(text)} are more than 1000 ports.`);
  return Array.from({ length: to - from + 1 }, (_, at) => from + at);
}

function invalidPorts(text: string) {
  return usage(
    `${JSON.stringify(text)} does not say which port to forward.`,
    'Write PORT, LOCAL:REMOTE, LOCAL:HOST:REMOTE, or a range such as 8000-8003; for UDP, 5353/udp.',
  );
}
