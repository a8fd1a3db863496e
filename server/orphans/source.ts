import type { AdoptedHome, Orphan } from '@cde/api/clusters.ts';
import type { Caller } from '../http/actor.ts';
import type { SystemCaller } from '../identity/audit/audit.ts';

export interface OrphanReport {
  items: Orphan[];
  /** Clusters and providers that are unreachable or not synced yet: nothing on them counts as an orphan. */
  unseen: string[];
}

/** Which orphans: those of one cluster, of one provider, or all. */
export interface OrphanSelection {
  cluster?: string | undefined;
  provider?: string | undefined;
}

export interface AdoptRequest extends OrphanSelection {
  /** As the list of orphans has it. */
  name: string;
  /** A username; by default the one that the home belonged to. */
  owner?: string | undefined;
}

/** A kind of platform whose orphans the sweep handles. */
export interface OrphanSource {
  /** Changes nothing, but with `reconcile` enqueues workspaces that should run and have lost their compute. */
  find(selection: OrphanSelection & { reconcile?: boolean }): Promise<OrphanReport>;
  /** Deletes those whose action is `delete`; with `dryRun` it only lists them. */
  clean(
    options: OrphanSelection & {
      dryRun: boolean;
      caller: Caller | SystemCaller;
      /** Only what holds no data and is made again when it is needed. */
      onlyCaches?: boolean;
    },
  ): Promise<{ items: Orphan[]; done: boolean }>;
  /** Makes an orphaned home a retained home of a user. Null: it is not on such a platform. */
  adopt(request: AdoptRequest, caller: Caller): Promise<AdoptedHome[] | null>;
}
