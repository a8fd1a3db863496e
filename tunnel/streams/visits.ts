/**
 * What a proxy of shared ports tells the agent about a stream, so that the agent can tell a person's visit from polling.
 * `other`: nobody is signed in, or no person caused it: a probe, a prefetch, an event stream.
 */
export interface PortVisit {
  kind: 'navigation' | 'request' | 'socket' | 'other';
  /** The same for requests of the same method and path. */
  key: string;
  /** Who is signed in, if the proxy knows the name. */
  username: string | null;
}

/** Longer than any username and key. */
const maxLength = 400;

/** The `cde-visit` header: kind, key and name, separated by spaces. */
export const formatVisit = ({ kind, key, username }: PortVisit): string =>
  `${kind} ${key || '-'} ${encodeURIComponent(username ?? '')}`.trim();

/** Null if there is no header: the client is no proxy. A malformed one says nothing about a person. */
export function parseVisit(text: string | undefined): PortVisit | null {
  if (text === undefined) return null;
  const other: PortVisit = { kind: 'other', key: '', username: null };
  const [, kind, key, name] =
    (text.length <= maxLength && /^(navigation|request|socket|other) ([\w-]{1,64})(?: (\S+))?$/.exec(text)) ||
    [];
  if (!kind || !key) return other;
  try {
    return {
      kind: kind as PortVisit['kind'],
      key,
      username: name === undefined ? null : decodeURIComponent(name),
    };
  } catch {
    return other;
  }
}
