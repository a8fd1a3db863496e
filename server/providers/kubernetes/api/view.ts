import type { KubeClient, KubeError, KubeKind } from './client.ts';
import type { ClusterView, WatchedKind } from './connections.ts';
import { apiVersions, type Kube } from './models.ts';
import { type Reflector, startReflector } from './reflector.ts';

/** Per namespace. A failing pod repeats its events; the newest of each reason are what explains it. */
const maxEvents = 50;

const watchedKinds: WatchedKind[] = [
  'Namespace',
  'Pod',
  'PersistentVolumeClaim',
  'StatefulSet',
  'ResourceQuota',
  'LimitRange',
  'NetworkPolicy',
  'RoleBinding',
  'ServiceAccount',
  'Event',
];

const selectorOf = <Kind extends WatchedKind>(kind: Kind, installation: string): KubeKind<Kind> => ({
  apiVersion: apiVersions[kind],
  kind,
  // Events carry none of our labels.
  ...(kind === 'Event' ? { fields: 'type=Warning' } : { labels: `cde.dev/installation=${installation}` }),
});

type Watched = Kube<WatchedKind>;

/** Drops what nobody reads: managed fields are most of an object's size. */
function trim(object: Watched): Watched {
  const { managedFields: _, ...metadata } = object.metadata;
  if (object.kind !== 'Event') return { ...object, metadata };
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
 * Whether a change concerns no reader: our own write, which was stored already, or the counters of a quota and of a
 * StatefulSet, which change with every pod. Each reported change costs a step of the workspace.
 */
function isNoop(before: Watched, now: Watched): boolean {
  if (before.metadata.resourceVersion === now.metadata.resourceVersion) return true;
  const content = contentWithoutCounters(now);
  return content !== null && content === contentWithoutCounters(before);
}

/** Null for a kind that has no counters. */
function contentWithoutCounters(object: Watched): string | null {
  if (object.kind !== 'ResourceQuota' && object.kind !== 'StatefulSet') return null;
  const { uid, labels, deletionTimestamp } = object.metadata;
  const observed = object.kind === 'StatefulSet' ? object.status?.observedGeneration : undefined;
  return JSON.stringify([uid, labels, deletionTimestamp, object.spec, observed]);
}

/** Whether a namespace has different objects of a kind than before; both maps are by name. */
function hasChanged(
  before: ReadonlyMap<string, Watched> = new Map(),
  now: ReadonlyMap<string, Watched> = new Map(),
): boolean {
  if (before.size !== now.size) return true;
  for (const [name, object] of now) {
    const earlier = before.get(name);
    if (!earlier || !isNoop(earlier, object)) return true;
  }
  return false;
}

function eventTime(object: Watched): number {
  if (object.kind !== 'Event') return 0;
  const { series, lastTimestamp, eventTime: at, metadata } = object;
  return Date.parse(series?.lastObservedTime ?? lastTimestamp ?? at ?? metadata.creationTimestamp ?? '') || 0;
}
const byEventTime = (a: Watched, b: Watched) => eventTime(a) - eventTime(b);

/** One watch per kind, and a store of what they report. `onState` receives failures, and null on recovery. */
export function makeView(options: {
  client: Pick<KubeClient, 'listFrom' | 'watch'>;
  installation: string;
  onState: (error: KubeError | null) => void;
  silentMs?: number;
}): ClusterView & { stop(): void; relist(): void } {
  /** By kind, then namespace, then name. */
  const store = new Map(watchedKinds.map((kind) => [kind, new Map<string, Map<string, Watched>>()]));
  const listed = new Set<WatchedKind>();
  const listeners: ((namespace: string, kind: WatchedKind) => void)[] = [];
  const notify = (namespace: string, kind: WatchedKind) => {
    for (const listener of listeners) listener(namespace, kind);
  };
  /** A Namespace is in its own. */
  const namespaceOf = ({ kind, metadata }: Watched) =>
    kind === 'Namespace' ? metadata.name : (metadata.namespace ?? '');
  const isOurs = (namespace: string) => store.get('Namespace')!.has(namespace);
  const versionOf = (object: Watched) => Number(object.metadata.resourceVersion ?? 0);

  function put(object: Watched): boolean {
    const { kind } = object;
    const namespace = namespaceOf(object);
    // Events come from all namespaces of the cluster.
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
    objects.set(object.metadata.name, trim(object));
    if (kind === 'Event' && objects.size > maxEvents) {
      const oldest = [...objects.values()].sort(byEventTime)[0]!;
      objects.delete(oldest.metadata.name);
    }
    return true;
  }

  function drop(object: Watched): void {
    const { kind } = object;
    const namespace = namespaceOf(object);
    const objects = store.get(kind)!.get(namespace);
    objects?.delete(object.metadata.name);
    if (objects?.size === 0) store.get(kind)!.delete(namespace);
    if (kind === 'Namespace') store.get('Event')!.delete(namespace);
  }

  const startFor = (kind: WatchedKind): Reflector =>
    startReflector(
      options.client,
      selectorOf(kind, options.installation),
      {
        onList(objects) {
          const namespaces = store.get(kind)!;
          const before = new Map(namespaces);
          namespaces.clear();
          for (const object of objects) put(object);
          listed.add(kind);
          if (kind === 'Namespace')
            for (const namespace of store.get('Event')!.keys())
              if (!isOurs(namespace)) store.get('Event')!.delete(namespace);
          // A second list must not wake every workspace: only those whose namespace differs.
          for (const namespace of new Set([...before.keys(), ...namespaces.keys()]))
            if (hasChanged(before.get(namespace), namespaces.get(namespace))) notify(namespace, kind);
        },
        onObject(type, object) {
          if (type === 'DELETED') drop(object);
          else {
            const before = store.get(kind)!.get(namespaceOf(object))?.get(object.metadata.name);
            if (!put(object)) return;
            if (before && isNoop(before, object)) return;
          }
          notify(namespaceOf(object), kind);
        },
        onState: options.onState,
      },
      options.silentMs === undefined ? {} : { silentMs: options.silentMs },
    );
  const reflectors = watchedKinds.map(startFor);

  // The store is keyed by kind, so what is under a kind has its model.
  return {
    get synced() {
      return listed.size === watchedKinds.length;
    },
    get: <Kind extends WatchedKind>(kind: Kind, namespace: string, name: string) =>
      (store
        .get(kind)!
        .get(kind === 'Namespace' ? name : namespace)
        ?.get(name) as Kube<Kind> | undefined) ?? null,
    list<Kind extends WatchedKind>(kind: Kind, namespace: string) {
      const all = [...(store.get(kind)!.get(namespace)?.values() ?? [])];
      return (kind === 'Event' ? all.sort(byEventTime) : all) as Kube<Kind>[];
    },
    namespaces: () =>
      [...store.get('Namespace')!.values()].flatMap((objects) => [
        ...objects.values(),
      ]) as Kube<'Namespace'>[],
    upsert(object) {
      if (store.has(object.kind as WatchedKind) && object.kind !== 'Event') put(object as Watched);
    },
    onChange: (listener) => void listeners.push(listener),
    relist() {
      for (const reflector of reflectors) reflector.relist();
    },
    stop() {
      for (const reflector of reflectors) reflector.stop();
    },
  };
}
