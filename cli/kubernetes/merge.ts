import { type Document, isMap, isSeq, parseDocument, type YAMLMap, type YAMLSeq } from 'yaml';
import { Failure } from '../failure.ts';

/** One context of a kubeconfig, with the cluster and the user that belong to it alone. */
export interface KubeContext {
  /** Of the context, its cluster and its user. */
  name: string;
  cluster: Record<string, unknown>;
  user: Record<string, unknown>;
  namespace: string;
}

const sections = ['clusters', 'users', 'contexts'] as const;

/** A kubeconfig with this context alone. */
export const alone = (context: KubeContext): string => merge('', context, true);

/**
 * Puts a context into the text of a kubeconfig, in place of one of the same name. Everything else stays as it is,
 * comments too. Throws a Failure when the text is not a kubeconfig.
 */
export function merge(text: string, context: KubeContext, makeCurrent: boolean): string {
  const document = read(text);
  const { name } = context;
  put(document, 'clusters', { name, cluster: context.cluster });
  put(document, 'users', { name, user: context.user });
  put(document, 'contexts', { name, context: { cluster: name, user: name, namespace: context.namespace } });
  if (makeCurrent || !document.get('current-context')) document.set('current-context', name);
  return document.toString();
}

/** Takes a context, its cluster and its user out again. Null: there was none. */
export function take(text: string, name: string): string | null {
  const document = read(text);
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
      hint: 'Mend it, or name another file: --kubeconfig FILE',
    });
  return document;
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
  // An empty list may be written `[]`; ours would all be on one line.
  sequence.flow = false;
  const node = document.createNode(entry);
  const index = indexOf(sequence, entry.name);
  if (index === -1) sequence.add(node);
  else sequence.items[index] = node;
}
