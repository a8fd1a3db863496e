/** A page asks for hundreds of files at once; what was true so long ago still counts. */
const defaultMaxAgeMs = 2_000;
/** Answers remembered of one kind: whoever asks for made-up names must not fill the memory. */
const maxEntries = 5_000;

/**
 * Asks for the same thing once in two seconds, and once at a time. A failure is everybody's who waits for it, and
 * is not remembered, nor is an answer of which `keep` says no.
 */
export function makeRequestCache<T>(shouldCache: (value: T) => boolean = () => true) {
  const entries = new Map<string, { value: Promise<T>; settledAt: number }>();
  return {
    /** `atMostMs`: how old an answer may be. */
    read(key: string, load: () => Promise<T>, maxAgeMs = defaultMaxAgeMs): Promise<T> {
      const found = entries.get(key);
      if (found && performance.now() - found.settledAt < maxAgeMs) return found.value;
      // Until it comes it is as new as can be.
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
    /** What was asked before counts no more, not even when it is answered only now. */
    forget() {
      entries.clear();
    },
  };
}
