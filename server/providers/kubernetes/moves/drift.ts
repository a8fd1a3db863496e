import type { Logger } from '../../../log.ts';
import type { WorkspaceSpec } from '../../provider.ts';
import { KubeError, type KubeObject } from '../api/client.ts';
import type { Connection, WatchedKind } from '../api/connections.ts';
import { MoveFailure } from '../objects/failure.ts';
import { hashOf } from '../objects/hash.ts';
import { namespaceObject, ownLabels, quotaObject } from '../objects/namespace.ts';
import { applyOne, NamespaceTerminating } from './apply.ts';
import type { State } from './state.ts';

/** Somebody else may put the same thing back each time; we do not race with them. */
const minPauseMs = 10_000;

/** What bounds a namespace beside its quota and labels: by kind, where it is and what it is in words. */
export const guards: ReadonlyMap<string, { apiVersion: string; name: string; what: string }> = new Map([
  ['ServiceAccount', { apiVersion: 'v1', name: 'developer', what: 'service account' }],
  [
    'RoleBinding',
    { apiVersion: 'rbac.authorization.k8s.io/v1', name: 'developer', what: 'rights of the developer' },
  ],
  ['LimitRange', { apiVersion: 'v1', name: 'cde', what: 'limits' }],
  ['NetworkPolicy', { apiVersion: 'networking.k8s.io/v1', name: 'cde', what: 'network policy' }],
]);

/** What of a guard is compared, and put back: all but its metadata. */
export function contentOf({ apiVersion: _v, kind: _k, metadata: _m, ...content }: KubeObject): object {
  return content;
}

/**
 * Puts back what somebody has edited in a running workspace and what needs no build: its quota, the labels of its
 * namespace, what bounds it. Compares with what the watches know, so that it costs no call while all is well.
 */
export function makeDriftRepair(options: { installation: string; log: Logger; now: () => Date }) {
  const { installation, log, now } = options;
  const repairedAt = new Map<string, number>();

  /** Returns what stays amiss, in a sentence. */
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
    const note = `Somebody changed of the namespace ${namespace}: ${drifts.map(({ what }) => what).join(', ')}.`;
    if (now().getTime() - (repairedAt.get(key) ?? 0) < minPauseMs) return note;
    repairedAt.set(key, now().getTime());
    const failures: string[] = [];
    await connection.grants.ensure(namespace).catch((error) => {
      if (!(error instanceof KubeError)) throw error;
      failures.push(error.message);
    });
    for (const { what, restore } of drifts)
      try {
        // All of it is ours alone, so it is taken back whoever wrote it.
        await restore();
      } catch (error) {
        if (
          !(
            error instanceof KubeError ||
            error instanceof MoveFailure ||
            error instanceof NamespaceTerminating
          )
        )
          throw error;
        log.warn({ err: error, namespace, what }, 'what somebody edited could not be put back');
        failures.push(`${what} could not be put back: ${error.message}`);
      }
    if (failures.length > 0) return `${note} ${failures.join('; ')}`;
    log.info({ workspace: spec.workspaceId, namespace }, `${note} It was put back.`);
    return null;
  };
}

interface Drift {
  /** In words: `its quota`. */
  what: string;
  restore(): Promise<void>;
}

function namespaceDrift(
  { view, client }: Connection,
  spec: WorkspaceSpec,
  place: { namespace: string; installation: string; server: string | undefined },
): Drift | null {
  const { namespace } = place;
  const wanted = namespaceObject(spec, place).metadata.labels!;
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
      const { hard } = wanted.spec as { hard: Record<string, string> };
      const extra = Object.keys((quota.spec as { hard?: object }).hard ?? {}).filter((key) => !(key in hard));
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
    // The cluster itself writes into service accounts; that there is one is what counts.
    if (there && (kind === 'ServiceAccount' || hashOf(contentOf(there)) === hashOf(content))) return [];
    return {
      what: `its ${what}`,
      async restore() {
        const metadata = { name, namespace, labels: ownLabels(spec, installation) };
        const apply = () => client.apply({ ...content, apiVersion, kind, metadata }, { force: true });
        const again = async (error: unknown) => {
          // The role of a binding cannot be changed: only another binding has another.
          if (!(error instanceof KubeError) || error.status !== 422 || kind !== 'RoleBinding') throw error;
          await client.remove({ apiVersion, kind, namespace, name });
          return apply();
        };
        view.upsert(await apply().catch(again));
      },
    };
  });
}
