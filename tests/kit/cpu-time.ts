/** The CPU time of this process in ms while `work` runs. Unlike elapsed time it does not depend on what else the machine does. */
export function cpuMs(work: () => unknown): number;
export function cpuMs(work: () => Promise<unknown>): Promise<number>;
export function cpuMs(work: () => unknown): number | Promise<number> {
  const before = process.cpuUsage();
  const used = () => {
    const { user, system } = process.cpuUsage(before);
    return (user + system) / 1000;
  };
  const result = work();
  return result instanceof Promise ? result.then(used) : used();
}
