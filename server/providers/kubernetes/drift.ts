import { createHash } from 'node:crypto';
import type { Logger } from '../../log.ts';
import type { WorkspaceSpec } from '../provider.ts';
import { applyOne, Leaving, Refused } from './apply.ts';
import { KubeError } from './client.ts';
import type { Connection } from './connections.ts';
import { namespaceItself, quotaItself } from './namespace.ts';
import type { State } from './state.ts';

/** Somebody else may put the same thing back each time; we do not race with them. */
const leastPauseMs = 10_000;

/** The same for the same content, whatever the order of its keys. */
export const hashOf = (value: unknown): string =>
  createHash('sha256')
    .update(JSON.stringify(value, (_key, each) => (isMap(each) ? sorted(each) : each)) ?? '')
    .digest('base64url');
const isMap = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const sorted = (map: Record<string, unknown>) =>
  Object.fromEntries(Object.entries(map).sort(([a], [b]) => (a < b ? -1 : 1)));

/**
 * Puts back what somebody has edited in a running workspace and what needs no build: its quota, and the labels of
 * its namespace. Compares with what the watches know, so that it costs no call while all is well.
 */
export function makeDrift(options: { installation: string; log: Logger; now: () => Date }) {
  const { installation, log, now } = options;
  const repairedAt = new Map<string, number>();

  /** Returns what stays amiss, in a sentence. */
  return async function repair(
    connection: Connection,
    spec: WorkspaceSpec,
    state: State,
  ): Promise<string | null> {
    const namespace = state.namespace!;
    const place = { namespace, installation };
    const { view, client } = connection;
    const quota = view.get('ResourceQuota', namespace, 'cde');
    const isQuotaRight = quota !== null && hashOf(quota.spec) === state.quota;
    const wanted = namespaceItself(spec, place).metadata.labels!;
    const has = view.get('Namespace', '', namespace)?.metadata.labels ?? {};
    const wrong = Object.keys(wanted).filter((key) => has[key] !== wanted[key]);
    const key = `${connection.record.name}/${namespace}`;
    if (isQuotaRight && wrong.length === 0) {
      repairedAt.delete(key);
      return null;
    }
    const note =
      wrong.length > 0
        ? `Somebody changed the labels of the namespace ${namespace}: ${wrong.join(', ')}.`
        : `Somebody changed the quota of the namespace ${namespace}.`;
    if (now().getTime() - (repairedAt.get(key) ?? 0) < leastPauseMs) return note;
    repairedAt.set(key, now().getTime());
    try {
      // Both are ours alone, so they are taken back whoever wrote them.
      if (wrong.length > 0)
        view.note(
          await client.patch(
            { apiVersion: 'v1', kind: 'Namespace', name: namespace },
            { metadata: { labels: Object.fromEntries(wrong.map((label) => [label, wanted[label]])) } },
          ),
        );
      if (quota && !isQuotaRight) {
        const { hard } = quotaItself(spec, place).spec as { hard: Record<string, string> };
        const extra = Object.keys((quota.spec as { hard?: object }).hard ?? {}).filter(
          (name) => !(name in hard),
        );
        view.note(
          await client.patch(
            { apiVersion: 'v1', kind: 'ResourceQuota', namespace, name: 'cde' },
            { spec: { hard: { ...hard, ...Object.fromEntries(extra.map((name) => [name, null])) } } },
          ),
        );
      } else if (!quota) await applyOne(connection, quotaItself(spec, place));
      log.info({ workspace: spec.workspaceId, namespace }, `${note} It was put back.`);
      return null;
    } catch (error) {
      if (!(error instanceof KubeError || error instanceof Refused || error instanceof Leaving)) throw error;
      log.warn({ err: error, namespace }, 'what somebody edited could not be put back');
      return `${note} It could not be put back: ${error.message}`;
    }
  };
}
