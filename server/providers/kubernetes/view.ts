import type { KubeClient, KubeError, KubeKind, KubeObject } from './client.ts';
import type { ClusterView, WatchedKind } from './connections.ts';
import { keepWatching, type Watch } from './watch.ts';

const mostEvents = 50;

const kinds = (installation: string): Record<WatchedKind, KubeKind> => {
  const labels = `cde.dev/installation=${installation}`;
  return {
    Namespace: { apiVersion: 'v1', kind: 'Namespace', labels },
    Pod: { apiVersion: 'v1', kind: 'Pod', labels },
    PersistentVolumeClaim: { apiVersion: 'v1', kind: 'PersistentVolumeClaim', labels },
    StatefulSet: { apiVersion: 'apps/v1', kind: 'StatefulSet', labels },
    ResourceQuota: { apiVersion: 'v1', kind: 'ResourceQuota', labels },
    LimitRange: { apiVersion: 'v1', kind: 'LimitRange', labels },
    NetworkPolicy: { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', labels },
    RoleBinding: { apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'RoleBinding', labels },
    ServiceAccount: { apiVersion: 'v1', kind: 'ServiceAccount', labels },
    // Events carry no labels of ours.
    Event: { apiVersion: 'v1', kind: 'Event', fields: 'type=Warning' },
  };
};

/** What of an object is kept; the rest is most of its size. */
function trimmed(kind: WatchedKind, object: KubeObject): KubeObject {
  const { managedFields: _, ...metadata } = object.metadata;
  if (kind !== 'Event') return { ...object, metadata };
  const { name, namespace, uid, resourceVersion, creationTimestamp } = metadata;
  return {
    ...object,
    metadata: {
      name,
      ...(namespace && { namespace }),
      ...(uid && { uid }),
      ...(resourceVersion && { resourceVersion }),
      ...(creationTimestamp && { creationTimestamp }),
    },
  };
}

/**
 * Whether a change is of no use to anybody: one that we made ourselves and have noted, or the counters of a quota
 * and of a StatefulSet, which move with every pod. Each change that is told costs a step of the workspace.
 */
function meansTheSame(kind: WatchedKind, before: KubeObject, now: KubeObject): boolean {
  if (before.metadata.resourceVersion === now.metadata.resourceVersion) return true;
  if (kind !== 'ResourceQuota' && kind !== 'StatefulSet') return false;
  const what = ({ metadata: { uid, labels, deletionTimestamp }, spec, status }: KubeObject) => {
    const { observedGeneration } = (status ?? {}) as { observedGeneration?: number };
    return JSON.stringify([uid, labels, deletionTimestamp, spec, observedGeneration]);
  };
  return what(before) === what(now);
}

/** Whether there is something else in a namespace than before, of one kind and by name. */
function isNews(
  kind: WatchedKind,
  before: ReadonlyMap<string, KubeObject> = new Map(),
  now: ReadonlyMap<string, KubeObject> = new Map(),
): boolean {
  if (before.size !== now.size) return true;
  for (const [name, object] of now) {
    const earlier = before.get(name);
    if (!earlier || !meansTheSame(kind, earlier, object)) return true;
  }
  return false;
}

const eventTime = (event: KubeObject): number =>
  Date.parse(
    String(
      (event.series as { lastObservedTime?: string } | undefined)?.lastObservedTime ??
        event.lastTimestamp ??
        event.eventTime ??
        event.metadata.creationTimestamp ??
        0,
    ),
  ) || 0;

/** One watch for each kind, and what they know. `onState` hears of failures (null: it works again). */
export function makeView(options: {
  client: Pick<KubeClient, 'listFrom' | 'watch'>;
  installation: string;
  onState: (error: KubeError | null) => void;
  silentMs?: number;
}): ClusterView & { stop(): void; poke(): void } {
  const wanted = kinds(options.installation);
  const names = Object.keys(wanted) as WatchedKind[];
  /** By kind, then namespace, then name. */
  const known = new Map(names.map((kind) => [kind, new Map<string, Map<string, KubeObject>>()]));
  const listed = new Set<WatchedKind>();
  const listeners: ((namespace: string, kind: WatchedKind) => void)[] = [];
  const tell = (namespace: string, kind: WatchedKind) => {
    for (const listener of listeners) listener(namespace, kind);
  };
  /** The namespace that an object is about: of a Namespace, itself. */
  const about = (kind: WatchedKind, object: KubeObject) =>
    kind === 'Namespace' ? object.metadata.name : (object.metadata.namespace ?? '');
  const ours = (namespace: string) => known.get('Namespace')!.has(namespace);
  const ageOf = (object: KubeObject) => Number(object.metadata.resourceVersion ?? 0);

  function put(kind: WatchedKind, object: KubeObject): boolean {
    const namespace = about(kind, object);
    // Events of everybody else's namespaces pass by.
    if (kind === 'Event' && listed.has('Namespace') && !ours(namespace)) return false;
    const spaces = known.get(kind)!;
    let space = spaces.get(namespace);
    if (!space) {
      space = new Map();
      spaces.set(namespace, space);
    }
    const before = space.get(object.metadata.name);
    if (before && before.metadata.uid === object.metadata.uid && ageOf(before) > ageOf(object)) return false;
    space.set(object.metadata.name, trimmed(kind, object));
    if (kind === 'Event' && space.size > mostEvents) {
      const oldest = [...space.values()].sort((a, b) => eventTime(a) - eventTime(b))[0]!;
      space.delete(oldest.metadata.name);
    }
    return true;
  }

  function drop(kind: WatchedKind, object: KubeObject): void {
    const namespace = about(kind, object);
    const space = known.get(kind)!.get(namespace);
    space?.delete(object.metadata.name);
    if (space?.size === 0) known.get(kind)!.delete(namespace);
    if (kind === 'Namespace') known.get('Event')!.delete(namespace);
  }

  const watches: Watch[] = names.map((kind) =>
    keepWatching(
      options.client,
      wanted[kind],
      {
        onList(objects) {
          const spaces = known.get(kind)!;
          const before = new Map(spaces);
          spaces.clear();
          for (const object of objects) put(kind, object);
          listed.add(kind);
          if (kind === 'Namespace')
            for (const namespace of known.get('Event')!.keys())
              if (!ours(namespace)) known.get('Event')!.delete(namespace);
          // One list again must not wake everybody: only those in whose namespace something is not as it was.
          for (const namespace of new Set([...before.keys(), ...spaces.keys()]))
            if (isNews(kind, before.get(namespace), spaces.get(namespace))) tell(namespace, kind);
        },
        onObject(type, object) {
          if (type === 'DELETED') drop(kind, object);
          else {
            const before = known.get(kind)!.get(about(kind, object))?.get(object.metadata.name);
            if (!put(kind, object)) return;
            if (before && meansTheSame(kind, before, object)) return;
          }
          tell(about(kind, object), kind);
        },
        onState: options.onState,
      },
      options.silentMs === undefined ? {} : { silentMs: options.silentMs },
    ),
  );

  return {
    get synced() {
      return listed.size === names.length;
    },
    get: (kind, namespace, name) =>
      known
        .get(kind)!
        .get(kind === 'Namespace' ? name : namespace)
        ?.get(name) ?? null,
    list(kind, namespace) {
      const all = [...(known.get(kind)!.get(namespace)?.values() ?? [])];
      return kind === 'Event' ? all.sort((a, b) => eventTime(a) - eventTime(b)) : all;
    },
    namespaces: () => [...known.get('Namespace')!.values()].flatMap((space) => [...space.values()]),
    note(object) {
      const kind = object.kind as WatchedKind;
      if (known.has(kind) && kind !== 'Event') put(kind, object);
    },
    onChange: (listener) => void listeners.push(listener),
    poke() {
      for (const watch of watches) watch.poke();
    },
    stop() {
      for (const watch of watches) watch.stop();
    },
  };
}
