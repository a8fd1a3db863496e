/** A duration: `1.24 s`, `48 s`, `3 min 05 s`, `2 h 04 min`. */
export function duration(ms: number): string {
  const clean = Math.max(0, ms);
  if (clean < 10_000) return `${(clean / 1000).toFixed(2)} s`;
  if (clean < 60_000) return `${(clean / 1000).toFixed(1)} s`;
  const seconds = Math.round(clean / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${String(seconds % 60).padStart(2, '0')} s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, '0')} min`;
}

/** `1.5 GiB`, `312 MiB`. */
export function bytes(count: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = count;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** A moment in the reader's zone, to the day. */
export function day(iso: string): string {
  return new Date(iso).toLocaleDateString(undefined, { dateStyle: 'medium' });
}

/** A moment in the reader's zone, to the second. */
export function moment(iso: string): string {
  return new Date(iso).toLocaleString(undefined, {
    dateStyle: 'medium',
    timeStyle: 'medium',
    hourCycle: 'h23',
  });
}
