/** A page loads hundreds of files at once. */
const defaultMaxAgeMs = 2_000;
/** Requests for made-up names must not fill the memory. */
const maxEntries = 5_000;

/**
 * Caches values for two seconds and shares loads in progress. Failures reject all waiting calls and are not cached;
 * neither are values for which `shouldCache` returns false.
 */
export function makeRequestCache<T>(shouldCache: (value: T) => boolean = () => true) {
  const entries = new Map<string, { value: Promise<T>; settledAt: number }>();
  return {
    read(key: string, load: () => Promise<T>, maxAgeMs = defaultMaxAgeMs): Promise<T> {
      const found = entries.get(key);
      if (found && performance.now() - found.settledAt < maxAgeMs) return found.value;
      // While loading, it counts as fresh.
      const entry = { value: load(), settledAt: Number.POSITIVE_INFINITY };
      entries.delete(key);
      entries.set(key, entry);
      if (entries.size > maxEntries) entries.delete(entries.keys().next().value!);
      const forget = () => {
        if (entries.get(key) === entry) entries.delete(key);
      };
      entry.value.then((value) => {
        entry.settledAt = performance.now();
        if (!shouldCache(value)) forget();
      }, forget);
      return entry.value;
    },
    /** Discards everything, including loads in progress. */
    forget() {
      entries.clear();
    },
  };
}
