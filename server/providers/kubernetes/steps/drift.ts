import type { Logger } from '../../../log.ts';
import type { WorkspaceSpec } from '../../provider.ts';
import { KubeError } from '../api/client.ts';
import type { Connection, WatchedKind } from '../api/connections.ts';
import type { KubeObject } from '../api/models.ts';
import { StepFailure } from '../objects/failure.ts';
import { hashOf } from '../objects/hash.ts';
import { namespaceObject, ownLabels, quotaObject } from '../objects/namespace.ts';
import { applyOne, NamespaceTerminating } from './apply.ts';
import type { State } from './state.ts';

/** Minimum time between repairs of one namespace, so that we do not race another controller. */
const minPauseMs = 10_000;

/** The objects that bound a namespace besides its quota and labels, by kind. */
export const guards: ReadonlyMap<string, { apiVersion: string; name: string; what: string }> = new Map([
  ['ServiceAccount', { apiVersion: 'v1', name: 'developer', what: 'service account' }],
  [
    'RoleBinding',
    { apiVersion: 'rbac.authorization.k8s.io/v1', name: 'developer', what: 'rights of the developer' },
  ],
  ['LimitRange', { apiVersion: 'v1', name: 'cde', what: 'limits' }],
  ['NetworkPolicy', { apiVersion: 'networking.k8s.io/v1', name: 'cde', what: 'network policy' }],
]);

/** The part of a guard that is compared and restored: everything but its metadata. */
export function contentOf<T extends Pick<KubeObject, 'apiVersion' | 'kind' | 'metadata'>>({
  apiVersion: _v,
  kind: _k,
  metadata: _m,
  ...content
}: T): Omit<T, 'apiVersion' | 'kind' | 'metadata'> {
  return content;
}

/**
 * Repairs drift in a running workspace that needs no build: edits of its quota, of the labels of its namespace, and of
 * the guards. Compares with the watches' view, so that it costs no call while there is no drift.
 */
export function makeDriftRepair(options: { installation: string; log: Logger; now: () => Date }) {
  const { installation, log, now } = options;
  const repairedAt = new Map<string, number>();

  /** Returns the drift that remains, in one sentence; null if there is none. */
  return async function repair(
    connection: Connection,
    spec: WorkspaceSpec,
    state: State,
  ): Promise<string | null> {
    const namespace = state.namespace!;
    const server = (await connection.grants.identity())?.label;
    const key = `${connection.record.name}/${namespace}`;
    const drifts = [
      namespaceDrift(connection, spec, { namespace, installation, server }),
      quotaDrift(connection, spec, state, installation),
      ...guardDrifts(connection, spec, state, installation),
    ].filter((drift) => drift !== null);
    if (drifts.length === 0) {
      repairedAt.delete(key);
      return null;
    }
    const note = `Changed outside of cde in the namespace ${namespace}: ${drifts.map(({ what }) => what).join(', ')}.`;
    if (now().getTime() - (repairedAt.get(key) ?? 0) < minPauseMs) return note;
    repairedAt.set(key, now().getTime());
    const failures: string[] = [];
    await connection.grants.ensure(namespace).catch((error) => {
      if (!(error instanceof KubeError)) throw error;
      failures.push(error.message);
    });
    for (const { what, restore } of drifts)
      try {
        // These fields are ours alone, so we overwrite any other manager.
        await restore();
      } catch (error) {
        if (
          !(
            error instanceof KubeError ||
            error instanceof StepFailure ||
            error instanceof NamespaceTerminating
          )
        )
          throw error;
        log.warn({ err: error, namespace, what }, 'failed to repair drift');
        failures.push(`${what} could not be restored: ${error.message}`);
      }
    if (failures.length > 0) return `${note} ${failures.join('; ')}`;
    log.info({ workspace: spec.workspaceId, namespace }, `${note} It was restored.`);
    return null;
  };
}

interface Drift {
  /** Such as `its quota`. */
  what: string;
  restore(): Promise<void>;
}

function namespaceDrift(
  { view, client }: Connection,
  spec: WorkspaceSpec,
  target: { namespace: string; installation: string; server: string | undefined },
): Drift | null {
  const { namespace } = target;
  const wanted = namespaceObject(spec, target).metadata.labels!;
  const has = view.get('Namespace', '', namespace)?.metadata.labels ?? {};
  const drifted = Object.keys(wanted).filter((key) => has[key] !== wanted[key]);
  if (drifted.length === 0) return null;
  return {
    what: `its labels (${drifted.join(', ')})`,
    async restore() {
      const labels = Object.fromEntries(drifted.map((label) => [label, wanted[label]]));
      view.upsert(
        await client.patch(
          { apiVersion: 'v1', kind: 'Namespace', name: namespace },
          { metadata: { labels } },
        ),
      );
    },
  };
}

function quotaDrift(
  connection: Connection,
  spec: WorkspaceSpec,
  { namespace: name, quotaHash: applied }: State,
  installation: string,
): Drift | null {
  const namespace = name!;
  const { view, client } = connection;
  const quota = view.get('ResourceQuota', namespace, 'cde');
  if (quota && hashOf(quota.spec) === applied) return null;
  const wanted = quotaObject(spec, { namespace, installation });
  return {
    what: 'its quota',
    async restore() {
      if (!quota) return void (await applyOne(connection, wanted));
      const { hard = {} } = wanted.spec ?? {};
      const extra = Object.keys(quota.spec?.hard ?? {}).filter((key) => !(key in hard));
      view.upsert(
        await client.patch(
          { apiVersion: 'v1', kind: 'ResourceQuota', namespace, name: 'cde' },
          { spec: { hard: { ...hard, ...Object.fromEntries(extra.map((key) => [key, null])) } } },
        ),
      );
    },
  };
}

function guardDrifts(
  { view, client }: Connection,
  spec: WorkspaceSpec,
  state: State,
  installation: string,
): Drift[] {
  const namespace = state.namespace!;
  return Object.entries(state.guards ?? {}).flatMap(([kind, content]) => {
    const { apiVersion, name, what } = guards.get(kind)!;
    const there = view.get(kind as WatchedKind, namespace, name);
    // Clusters write into service accounts; only a missing one is drift.
    if (there && (kind === 'ServiceAccount' || hashOf(contentOf(there)) === hashOf(content))) return [];
    return {
      what: `its ${what}`,
      async restore() {
        const metadata = { name, namespace, labels: ownLabels(spec, installation) };
        const apply = () => client.apply({ ...content, apiVersion, kind, metadata }, { force: true });
        const again = async (error: unknown) => {
          // The role of a binding is immutable: it has to be created again.
          if (!(error instanceof KubeError) || error.status !== 422 || kind !== 'RoleBinding') throw error;
          await client.remove({ apiVersion, kind, namespace, name });
          return apply();
        };
        view.upsert(await apply().catch(again));
      },
    };
  });
}
