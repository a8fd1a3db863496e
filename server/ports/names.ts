import { usernamePattern, workspaceNamePattern } from '@cde/api/names.ts';

/** A port of a workspace, referred to by owner and name, or by id if the names are too long for DNS. */
export type PortRef = { port: number } & ({ owner: string; name: string } | { id: string });

/** The limit of DNS. */
const maxLabelLength = 63;
const portOf = (text: string) => {
  const port = /^[1-9]\d{0,4}$/.test(text) ? Number(text) : 0;
  return port <= 65535 ? port : 0;
};

/** `8080--web--ada` for ada/web (names never contain two hyphens in a row), or `8080--ID` if that is too long. */
export function portLabel(ref: { port: number; owner: string; name: string; id: string }): string {
  const label = `${ref.port}--${ref.name}--${ref.owner}`;
  return label.length <= maxLabelLength ? label : `${ref.port}--${ref.id.replaceAll('-', '')}`;
}

/** Parses the result of portLabel; null if it is not one. */
export function parsePortLabel(label: string): PortRef | null {
  const [port = '', name = '', owner, ...more] = label.split('--');
  const number = portOf(port);
  if (number === 0 || more.length > 0) return null;
  if (owner === undefined) {
    const id = /^([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})$/.exec(name);
    return id ? { port: number, id: id.slice(1).join('-') } : null;
  }
  return workspaceNamePattern.test(name) && usernamePattern.test(owner)
    ? { port: number, owner, name }
    : null;
}

/** Marks the path segment that carries a pass. */
const passPrefix = '~cde.';
const pathPattern =
  /^\/@([a-z0-9-]+)\/([a-z0-9-]+)\/ports\/(\d{1,5})(?=[/?]|$)(?:\/~cde\.([\w.-]+)(?=[/?]|$))?(.*)$/s;

export interface PortPath {
  ref: Extract<PortRef, { owner: string }>;
  pass: string | null;
  /** The path and query behind the port, unmodified; '' if not even a slash follows it. */
  rest: string;
}

/** Parses `/@owner/name/ports/PORT/…` without decoding it, so that the workspace gets exactly what was sent. */
export function parsePortPath(url: string): PortPath | null {
  const match = pathPattern.exec(url);
  if (!match) return null;
  const [, owner = '', name = '', digits = '', pass, rest = ''] = match;
  const port = portOf(digits);
  if (port === 0 || !usernamePattern.test(owner) || !workspaceNamePattern.test(name)) return null;
  return { ref: { owner, name, port }, pass: pass ?? null, rest };
}

/** The prefix of a port's paths, without a trailing slash. */
export const portPath = (ref: { owner: string; name: string; port: number }, pass?: string) =>
  `/@${ref.owner}/${ref.name}/ports/${ref.port}${pass ? `/${passPrefix}${pass}` : ''}`;

/** The dashboard page that signs a browser in to a port. */
export const openPath = '/ports/open';
/** A wildcard name under which ports are served, by this server or a satellite. */
export interface PortSite {
  /** The common suffix of the names: `.dev.example.com`. */
  suffix: string;
  /** The URL of the server or satellite. */
  url: string;
}

/** The origin of a port's name, with the scheme and port of the site that serves it. */
export function portOrigin({ url, suffix }: PortSite, label: string): string {
  const { protocol, port } = new URL(url);
  return `${protocol}//${label}${suffix}${port === '' ? '' : `:${port}`}`;
}
