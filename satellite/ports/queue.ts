/** Does so many of its tasks at once, and the others in their order as these end. */
export function makeQueue(most: number) {
  const waiting: (() => void)[] = [];
  let underWay = 0;
  return async <T>(task: () => Promise<T>): Promise<T> => {
    if (underWay < most) underWay += 1;
    // Its place is that of the one that has ended.
    else await new Promise<void>((resolve) => waiting.push(resolve));
    try {
      return await task();
    } finally {
      const next = waiting.shift();
      if (next) next();
      else underWay -= 1;
    }
  };
}
