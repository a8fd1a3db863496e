import type { SatelliteStore } from './store.ts';

export interface Place {
  name: string;
  url: string;
}

/** A ticket names no more. */
const mostPlaces = 20;
/** How old a list may be: agents ask for it with each report, thousands of them in a second. */
const freshMs = 1_000;

/** The satellites that agents listen at, and those that clients dial, in the order to try them. */
export interface Registry {
  ofAgents(): Promise<Place[]>;
  ofClients(): Promise<Place[]>;
}

/**
 * Joins the server's own satellites with the registered ones. The embedded come first: which of the others
 * is nearer to whom is not known here.
 */
export function makeRegistry(options: {
  store: Pick<SatelliteStore, 'serving'>;
  embedded: Record<'ofAgents' | 'ofClients', () => Promise<Place[]>>;
}): Registry {
  const { store, embedded } = options;

  function joined(own: () => Promise<Place[]>): () => Promise<Place[]> {
    let last: { at: number; places: Promise<Place[]> } | null = null;
    return () => {
      const at = performance.now();
      if (last && at - last.at < freshMs) return last.places;
      const places = Promise.all([own(), store.serving()]).then(([mine, others]) =>
        [...mine, ...others].slice(0, mostPlaces),
      );
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
