import type { SatelliteStore } from './store.ts';

export interface SatelliteLocation {
  /** Absent for the server's own satellites. */
  id?: string;
  name: string;
  url: string;
  region: string;
  /** HOST:PORT of its STUN server. */
  stun?: string;
}

/** The most that a ticket may name. */
const maxLocations = 20;
/** Thousands of agents request the list in the same second, with each of their reports. */
const cacheMs = 1_000;

/** The satellites that agents listen at and that clients dial, in the order to try them. */
export interface SatelliteRegistry {
  forAgents(regions: Regions): Promise<SatelliteLocation[]>;
  forClients(regions: Regions): Promise<SatelliteLocation[]>;
}

/** The regions that sessions can pass through; null: any. */
export type Regions = readonly string[] | null;

/**
 * Merges the server's own satellites with the registered ones in the given regions. The embedded ones come first: agents
 * and clients measure which of the others are near.
 */
export function makeSatelliteRegistry(options: {
  store: Pick<SatelliteStore, 'listServing'>;
  embedded: Record<'forAgents' | 'forClients', () => Promise<SatelliteLocation[]>>;
}): SatelliteRegistry {
  const { store, embedded } = options;

  function inRegions(
    listEmbedded: () => Promise<SatelliteLocation[]>,
  ): (regions: Regions) => Promise<SatelliteLocation[]> {
    const listAll = cachedList(listEmbedded);
    return async (regions) =>
      (await listAll()).filter(({ region }) => regions?.includes(region) ?? true).slice(0, maxLocations);
  }

  function cachedList(listEmbedded: () => Promise<SatelliteLocation[]>): () => Promise<SatelliteLocation[]> {
    let cached: { at: number; locations: Promise<SatelliteLocation[]> } | null = null;
    return () => {
      const at = performance.now();
      if (cached && at - cached.at < cacheMs) return cached.locations;
      const locations = Promise.all([listEmbedded(), store.listServing()]).then((lists) => lists.flat());
      const entry = { at, locations };
      cached = entry;
      locations.catch(() => {
        if (cached === entry) cached = null;
      });
      return locations;
    };
  }
  return { forAgents: inRegions(embedded.forAgents), forClients: inRegions(embedded.forClients) };
}
