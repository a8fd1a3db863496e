/** A home may hold a million files, so it is counted rarely. */
const countEveryMs = 10 * 60_000;
const countWithinMs = 5 * 60_000;

/** Returns the home's size as last counted, or null before the first. Each call starts the next count when it is due. */
export function countHome(home: () => string): () => number | null {
  let used: number | null = null;
  let next = 0;
  return () => {
    if (performance.now() >= next) {
      next = performance.now() + countEveryMs;
      const { execFile } = process.getBuiltinModule('node:child_process');
      const options = { timeout: countWithinMs, maxBuffer: 1 << 20 };
      // The shell says how much its children used, which is the agent's own usage and no activity.
      const script = 'nice -n 19 du -skx "$1"; times; cat /proc/$$/io 2>/dev/null';
      execFile('sh', ['-c', script, 'sh', home()], options, (_error, stdout) => {
        addUsage(stdout);
        // du fails if it cannot read some files, but counts the others.
        const kibibytes = /^(\d+)\s/.exec(stdout)?.[1];
        if (kibibytes) used = Number(kibibytes) * 1024;
      });
    }
    return used;
  };
}

const counted = { cpuMs: 0, diskBytes: 0 };
/** What counting homes has used so far. */
export const countingUsage = (): Readonly<typeof counted> => counted;

function addUsage(output: string): void {
  // `0m1.25s 0m0.50s`, for the shell and, in the next line, for its children.
  for (const [, minutes, seconds] of output.matchAll(/(\d+)m([\d.]+)s/g))
    counted.cpuMs += Number(minutes) * 60_000 + Number(seconds) * 1000;
  for (const [, bytes] of output.matchAll(/^(?:read|write)_bytes: (\d+)$/gm))
    counted.diskBytes += Number(bytes);
}
