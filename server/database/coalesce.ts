/**
 * Shares one read among all concurrent callers with the same key. Use it only for values that may be a few milliseconds
 * old. All callers get the same failure, and neither results nor failures are cached.
 */
export function makeCoalescer<T>(): (key: string, read: () => Promise<T>) => Promise<T> {
  const pending = new Map<string, Promise<T>>();
  return (key, read) => {
    const existing = pending.get(key);
    if (existing) return existing;
    const result = read().finally(() => pending.delete(key));
    pending.set(key, result);
    return result;
  };
}
