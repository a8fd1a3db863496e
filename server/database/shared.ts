/**
 * Shares a read among those who ask for the same thing while it is under way: one query serves them all.
 * Only for what may be a few milliseconds old; a failure is everybody's, and is not remembered.
 */
export function makeShared<T>(): (key: string, read: () => Promise<T>) => Promise<T> {
  const underWay = new Map<string, Promise<T>>();
  return (key, read) => {
    const found = underWay.get(key);
    if (found) return found;
    const asked = read().finally(() => underWay.delete(key));
    underWay.set(key, asked);
    return asked;
  };
}
