import type { SatelliteStore } from './store.ts';

export interface SatelliteLocation {
  /** Absent: one of the server's own. */
  id?: string;
  name: string;
  url: string;
  region: string;
  /** HOST:PORT of its STUN server. */
  stun?: string;
}

/** A ticket names no more. */
const maxLocations = 20;
/** How old a list may be: agents ask for it with each report, thousands of them in a second. */
const cacheMs = 1_000;

/** The satellites that agents listen at, and those that clients dial, in the order to try them. */
export interface SatelliteRegistry {
  forAgents(regions: Regions): Promise<SatelliteLocation[]>;
  forClients(regions: Regions): Promise<SatelliteLocation[]>;
}

/** Those that sessions may pass through; null: any. */
export type Regions = readonly string[] | null;

/**
 * Joins the server's own satellites with the registered ones, of the regions that are asked for. The embedded come
 * first: which of the others is nearer to whom, clients and agents measure.
 */
export function makeSatelliteRegistry(options: {
  store: Pick<SatelliteStore, 'listServing'>;
  embedded: Record<'forAgents' | 'forClients', () => Promise<SatelliteLocation[]>>;
}): SatelliteRegistry {
  const { store, embedded } = options;

  function joined(
    own: () => Promise<SatelliteLocation[]>,
  ): (regions: Regions) => Promise<SatelliteLocation[]> {
    const all = everywhere(own);
    return async (regions) =>
      (await all()).filter(({ region }) => regions?.includes(region) ?? true).slice(0, maxLocations);
  }

  function everywhere(own: () => Promise<SatelliteLocation[]>): () => Promise<SatelliteLocation[]> {
    let last: { at: number; places: Promise<SatelliteLocation[]> } | null = null;
    return () => {
      const at = performance.now();
      if (last && at - last.at < cacheMs) return last.places;
      const places = Promise.all([own(), store.listServing()]).then(([mine, others]) => [...mine, ...others]);
      const asked = { at, places };
      last = asked;
      places.catch(() => {
        if (last === asked) last = null;
      });
      return places;
    };
  }
  return { forAgents: joined(embedded.forAgents), forClients: joined(embedded.forClients) };
}
