/**
 * Shares a read among those who ask for the same thing while it is under way: one query serves them all.
 * Only for what may be a few milliseconds old; a failure is everybody's, and is not remembered.
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
