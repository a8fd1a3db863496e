import { usernamePattern, workspaceNamePattern } from '@cde/api/names.ts';

/** Which port a request means: of a workspace by its names, or by its id where the names are too long for DNS. */
export type PortRef = { port: number } & ({ owner: string; name: string } | { id: string });

/** A label of DNS is no longer. */
const maxLabelLength = 63;
const portOf = (text: string) => {
  const port = /^[1-9]\d{0,4}$/.test(text) ? Number(text) : 0;
  return port <= 65535 ? port : 0;
};

/** `8080--web--ada` of ada/web; names of ours hold no two hyphens in a row. Long ones: `8080--ID`. */
export function portLabel(ref: { port: number; owner: string; name: string; id: string }): string {
  const label = `${ref.port}--${ref.name}--${ref.owner}`;
  return label.length <= maxLabelLength ? label : `${ref.port}--${ref.id.replaceAll('-', '')}`;
}

/** Reads portLabel's form; null where it is none. */
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

/** What a path of a port begins with after its owner and name: what its own pages are told of who opened them. */
const passPrefix = '~cde.';
const pathPattern =
  /^\/@([a-z0-9-]+)\/([a-z0-9-]+)\/ports\/(\d{1,5})(?=[/?]|$)(?:\/~cde\.([\w.-]+)(?=[/?]|$))?(.*)$/s;

export interface PortPath {
  ref: Extract<PortRef, { owner: string }>;
  /** The pass in the path, where there is one. */
  pass: string | null;
  /** The path and query behind it, as they came; '' where not even a slash ends it. */
  rest: string;
}

/** Reads `/@owner/name/ports/PORT/…` as it came, nothing decoded: what it says is what the workspace gets. */
export function parsePortPath(url: string): PortPath | null {
  const match = pathPattern.exec(url);
  if (!match) return null;
  const [, owner = '', name = '', digits = '', pass, rest = ''] = match;
  const port = portOf(digits);
  if (port === 0 || !usernamePattern.test(owner) || !workspaceNamePattern.test(name)) return null;
  return { ref: { owner, name, port }, pass: pass ?? null, rest };
}

/** The path that a port's own begin with, without a slash at its end. */
export const portPath = (ref: { owner: string; name: string; port: number }, pass?: string) =>
  `/@${ref.owner}/${ref.name}/ports/${ref.port}${pass ? `/${passPrefix}${pass}` : ''}`;

/** Where the dashboard gives a browser what it needs for a port's own name. */
export const openPath = '/ports/open';
/** Where ports have names of their own: at this server, or at a satellite that may serve them. */
export interface PortSite {
  /** What those names end with: `.dev.example.com`. */
  suffix: string;
  /** The URL of what serves them: the dashboard's, or the satellite's. */
  url: string;
}

/** The origin of a port's own name: scheme and port are those of whatever serves it. */
export function portOrigin({ url, suffix }: PortSite, label: string): string {
  const { protocol, port } = new URL(url);
  return `${protocol}//${label}${suffix}${port === '' ? '' : `:${port}`}`;
}
