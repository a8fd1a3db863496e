import type { KubeClient, KubeError, KubeKind, KubeObject } from './client.ts';
import type { ClusterView, WatchedKind } from './connections.ts';
import { type Reflector, startReflector } from './reflector.ts';

const maxEvents = 50;

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
function trim(kind: WatchedKind, object: KubeObject): KubeObject {
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
function isNoop(kind: WatchedKind, before: KubeObject, now: KubeObject): boolean {
  if (before.metadata.resourceVersion === now.metadata.resourceVersion) return true;
  if (kind !== 'ResourceQuota' && kind !== 'StatefulSet') return false;
  const what = ({ metadata: { uid, labels, deletionTimestamp }, spec, status }: KubeObject) => {
    const { observedGeneration } = (status ?? {}) as { observedGeneration?: number };
    return JSON.stringify([uid, labels, deletionTimestamp, spec, observedGeneration]);
  };
  return what(before) === what(now);
}

/** Whether there is something else in a namespace than before, of one kind and by name. */
function hasChanged(
  kind: WatchedKind,
  before: ReadonlyMap<string, KubeObject> = new Map(),
  now: ReadonlyMap<string, KubeObject> = new Map(),
): boolean {
  if (before.size !== now.size) return true;
  for (const [name, object] of now) {
    const earlier = before.get(name);
    if (!earlier || !isNoop(kind, earlier, object)) return true;
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
}): ClusterView & { stop(): void; relist(): void } {
  const selectors = kinds(options.installation);
  const names = Object.keys(selectors) as WatchedKind[];
  /** By kind, then namespace, then name. */
  const store = new Map(names.map((kind) => [kind, new Map<string, Map<string, KubeObject>>()]));
  const listed = new Set<WatchedKind>();
  const listeners: ((namespace: string, kind: WatchedKind) => void)[] = [];
  const notify = (namespace: string, kind: WatchedKind) => {
    for (const listener of listeners) listener(namespace, kind);
  };
  /** The namespace that an object is about: of a Namespace, itself. */
  const namespaceOf = (kind: WatchedKind, object: KubeObject) =>
    kind === 'Namespace' ? object.metadata.name : (object.metadata.namespace ?? '');
  const isOurs = (namespace: string) => store.get('Namespace')!.has(namespace);
  const versionOf = (object: KubeObject) => Number(object.metadata.resourceVersion ?? 0);

  function put(kind: WatchedKind, object: KubeObject): boolean {
    const namespace = namespaceOf(kind, object);
    // Events of everybody else's namespaces pass by.
    if (kind === 'Event' && listed.has('Namespace') && !isOurs(namespace)) return false;
    const namespaces = store.get(kind)!;
    let objects = namespaces.get(namespace);
    if (!objects) {
      objects = new Map();
      namespaces.set(namespace, objects);
    }
    const before = objects.get(object.metadata.name);
    if (before && before.metadata.uid === object.metadata.uid && versionOf(before) > versionOf(object))
      return false;
    objects.set(object.metadata.name, trim(kind, object));
    if (kind === 'Event' && objects.size > maxEvents) {
      const oldest = [...objects.values()].sort((a, b) => eventTime(a) - eventTime(b))[0]!;
      objects.delete(oldest.metadata.name);
    }
    return true;
  }

  function drop(kind: WatchedKind, object: KubeObject): void {
    const namespace = namespaceOf(kind, object);
    const objects = store.get(kind)!.get(namespace);
    objects?.delete(object.metadata.name);
    if (objects?.size === 0) store.get(kind)!.delete(namespace);
    if (kind === 'Namespace') store.get('Event')!.delete(namespace);
  }

  const reflectors: Reflector[] = names.map((kind) =>
    startReflector(
      options.client,
      selectors[kind],
      {
        onList(objects) {
          const namespaces = store.get(kind)!;
          const before = new Map(namespaces);
          namespaces.clear();
          for (const object of objects) put(kind, object);
          listed.add(kind);
          if (kind === 'Namespace')
            for (const namespace of store.get('Event')!.keys())
              if (!isOurs(namespace)) store.get('Event')!.delete(namespace);
          // One list again must not wake everybody: only those in whose namespace something is not as it was.
          for (const namespace of new Set([...before.keys(), ...namespaces.keys()]))
            if (hasChanged(kind, before.get(namespace), namespaces.get(namespace))) notify(namespace, kind);
        },
        onObject(type, object) {
          if (type === 'DELETED') drop(kind, object);
          else {
            const before = store.get(kind)!.get(namespaceOf(kind, object))?.get(object.metadata.name);
            if (!put(kind, object)) return;
            if (before && isNoop(kind, before, object)) return;
          }
          notify(namespaceOf(kind, object), kind);
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
      store
        .get(kind)!
        .get(kind === 'Namespace' ? name : namespace)
        ?.get(name) ?? null,
    list(kind, namespace) {
      const all = [...(store.get(kind)!.get(namespace)?.values() ?? [])];
      return kind === 'Event' ? all.sort((a, b) => eventTime(a) - eventTime(b)) : all;
    },
    namespaces: () => [...store.get('Namespace')!.values()].flatMap((objects) => [...objects.values()]),
    upsert(object) {
      const kind = object.kind as WatchedKind;
      if (store.has(kind) && kind !== 'Event') put(kind, object);
    },
    onChange: (listener) => void listeners.push(listener),
    relist() {
      for (const watch of reflectors) watch.relist();
    },
    stop() {
      for (const watch of reflectors) watch.stop();
    },
  };
}
