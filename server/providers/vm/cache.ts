/** How long answers are used that hardly ever change. */
const cacheMs = 5 * 60_000;

/** Answers by key; a failure is not kept. */
export function makeCache(now: () => number = () => performance.now()) {
  const entries = new Map<string, { at: number; value: Promise<unknown> }>();
  return {
    get<T>(key: string, make: () => Promise<T>): Promise<T> {
      const found = entries.get(key);
      if (found && now() - found.at < cacheMs) return found.value as Promise<T>;
      const value = make();
      entries.set(key, { at: now(), value });
      value.catch(() => entries.delete(key));
      return value;
    },
    clear: () => entries.clear(),
  };
}
