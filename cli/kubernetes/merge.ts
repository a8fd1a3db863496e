import { type Document, isMap, isSeq, parseDocument, type YAMLMap, type YAMLSeq } from 'yaml';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure } from '../failure/failure.ts';

/** A context of a kubeconfig with its own cluster and user. */
export interface KubeContext {
  /** The name of the context, its cluster and its user. */
  name: string;
  cluster: Record<string, unknown>;
  user: Record<string, unknown>;
  namespace: string;
}

const sections = ['clusters', 'users', 'contexts'] as const;

/** A kubeconfig with only this context. */
export const standaloneConfig = (context: KubeContext): string => merge('', context, true);

/**
 * Adds a context to a kubeconfig's text, or replaces the one that cde added for the same server. Everything else stays
 * unchanged, including comments. The name comes from the server, so entries of the user or of another server are never
 * replaced. Throws `kubeconfig-name-taken`, or `kubeconfig-unreadable` if the text is not a kubeconfig.
 */
export function merge(text: string, context: KubeContext, makeCurrent: boolean): string {
  const document = read(text);
  const { name } = context;
  const taken = sections.filter((section) => entryOf(document, section, name));
  if (taken.length > 0 && serverOf(document, name) !== serverOfUser(context.user))
    throw new Failure(
      'kubeconfig-name-taken',
      `The kubeconfig has ${JSON.stringify(name)} in ${taken.join(', ')} already.`,
      {
        exitCode: exitCodes.conflict,
        detail: 'It was not made by cde for this server, so it was left as it is.',
        hint: 'Choose another name: --context NAME',
      },
    );
  put(document, 'clusters', { name, cluster: context.cluster });
  put(document, 'users', { name, user: context.user });
  put(document, 'contexts', { name, context: { cluster: name, user: name, namespace: context.namespace } });
  if (makeCurrent || !document.get('current-context')) document.set('current-context', name);
  return document.toString();
}

/** Removes a context with its cluster and user. Null if cde has added none for this server. */
export function removeContext(text: string, name: string, server: string): string | null {
  const document = read(text);
  if (serverOf(document, name) !== server) return null;
  let found = false;
  for (const section of sections) {
    const list = document.get(section);
    if (!isSeq(list)) continue;
    const index = indexOf(list, name);
    if (index === -1) continue;
    found = true;
    list.delete(index);
  }
  if (document.get('current-context') === name) document.set('current-context', '');
  return found ? document.toString() : null;
}

function read(text: string): Document {
  const document = parseDocument(text.trim() === '' ? 'apiVersion: v1\nkind: Config\n' : text);
  const broken = document.errors[0]?.message ?? (isMap(document.contents) ? null : 'it is not a map');
  if (broken)
    throw new Failure('kubeconfig-unreadable', 'The kubeconfig cannot be read, and was left as it is.', {
      detail: broken,
      hint: 'Fix it, or use another file: --kubeconfig FILE',
    });
  return document;
}

/** The cde server behind the user entry of that name, if cde added it together with the context and the cluster. */
function serverOf(document: Document, name: string): string | undefined {
  const entry = entryOf(document, 'users', name);
  const context = entryOf(document, 'contexts', name)?.context as Record<string, unknown> | undefined;
  // A context of that name that the user has pointed elsewhere is theirs.
  if (context && (context.user !== name || context.cluster !== name)) return undefined;
  return entry && serverOfUser(entry.user);
}

/** `[cde, 'kube-token', WORKSPACE, '--server', URL]`: the command of our user entries. */
function serverOfUser(user: unknown): string | undefined {
  const args = (user as { exec?: { args?: unknown } } | null | undefined)?.exec?.args;
  if (!Array.isArray(args) || args.length !== 5 || args[1] !== 'kube-token') return undefined;
  return typeof args[4] === 'string' ? args[4] : undefined;
}

function entryOf(
  document: Document,
  section: (typeof sections)[number],
  name: string,
): Record<string, unknown> | undefined {
  const list = document.get(section);
  if (!isSeq(list)) return undefined;
  const index = indexOf(list, name);
  return index === -1 ? undefined : (list.items[index] as YAMLMap).toJSON();
}

const indexOf = (list: YAMLSeq, name: string) =>
  list.items.findIndex((item) => isMap(item) && (item as YAMLMap).get('name') === name);

function put(
  document: Document,
  section: (typeof sections)[number],
  entry: { name: string; [part: string]: unknown },
): void {
  let list = document.get(section);
  if (!isSeq(list)) {
    document.set(section, document.createNode([]));
    list = document.get(section);
  }
  const sequence = list as YAMLSeq;
  // An empty list can be written `[]`, which would put our entries on one line.
  sequence.flow = false;
  const node = document.createNode(entry);
  const index = indexOf(sequence, entry.name);
  if (index === -1) sequence.add(node);
  else sequence.items[index] = node;
}
