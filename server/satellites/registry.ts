import type { SatelliteStore } from './store.ts';

export interface Place {
  /** Absent: one of the server's own. */
  id?: string;
  name: string;
  url: string;
  region: string;
  /** HOST:PORT of its STUN server. */
  stun?: string;
}

/** A ticket names no more. */
const mostPlaces = 20;
/** How old a list may be: agents ask for it with each report, thousands of them in a second. */
const freshMs = 1_000;

/** The satellites that agents listen at, and those that clients dial, in the order to try them. */
export interface Registry {
  ofAgents(regions: Regions): Promise<Place[]>;
  ofClients(regions: Regions): Promise<Place[]>;
}

/** Those that sessions may pass through; null: any. */
export type Regions = readonly string[] | null;

/**
 * Joins the server's own satellites with the registered ones, of the regions that are asked for. The embedded come
 * first: which of the others is nearer to whom, clients and agents measure.
 */
export function makeRegistry(options: {
  store: Pick<SatelliteStore, 'serving'>;
  embedded: Record<'ofAgents' | 'ofClients', () => Promise<Place[]>>;
}): Registry {
  const { store, embedded } = options;

  function joined(own: () => Promise<Place[]>): (regions: Regions) => Promise<Place[]> {
    const all = everywhere(own);
    return async (regions) =>
      (await all()).filter(({ region }) => regions?.includes(region) ?? true).slice(0, mostPlaces);
  }

  function everywhere(own: () => Promise<Place[]>): () => Promise<Place[]> {
    let last: { at: number; places: Promise<Place[]> } | null = null;
    return () => {
      const at = performance.now();
      if (last && at - last.at < freshMs) return last.places;
      const places = Promise.all([own(), store.serving()]).then(([mine, others]) => [...mine, ...others]);
      const asked = { at, places };
      last = asked;
      places.catch(() => {
        if (last === asked) last = null;
      });
      return places;
    };
  }
  return { ofAgents: joined(embedded.ofAgents), ofClients: joined(embedded.ofClients) };
}
