import type { OrphanSource } from '../../orphans/source.ts';
import { adoptOrphan } from './adopt.ts';
import { cleanOrphans, findOrphans, type OrphanDeps } from './orphans.ts';

/** The orphans on clusters. */
export function makeKubernetesOrphans(deps: OrphanDeps & { homeGraceMs: number }): OrphanSource {
  const isOurs = (provider: string | undefined) => provider === undefined || provider === 'kubernetes';
  return {
    async find({ provider, ...options }) {
      return isOurs(provider) ? findOrphans(deps, options) : { items: [], unseen: [] };
    },
    async clean({ provider, onlyCaches, ...options }) {
      // Nothing on a cluster is a cache.
      if (!isOurs(provider) || onlyCaches) return { items: [], done: !options.dryRun };
      return cleanOrphans(deps, options);
    },
    async adopt({ cluster, name, owner }, caller) {
      return cluster === undefined ? null : adoptOrphan(deps, { cluster, name, owner }, caller);
    },
  };
}
