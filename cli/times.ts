/** A length of time for a person: `0.4s`, `12s`, `3m 20s`, `2h 5m`, `4d`. */
export function duration(ms: number): string {
  if (ms < 9_950) return `${(Math.max(0, ms) / 1000).toFixed(1)}s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m ${seconds % 60}s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)}h ${minutes % 60}m`;
  return `${Math.round(minutes / 60 / 24)}d`;
}

/** When, seen from now: `just now`, `5m ago`, `in 3d`. */
export function relative(moment: string | null, now = Date.now()): string {
  if (moment === null) return 'never';
  const ms = now - Date.parse(moment);
  const size = Math.abs(ms);
  if (size < 5_000) return 'just now';
  const [count, unit] =
    size < 60_000
      ? [size / 1000, 's']
      : size < 3_600_000
        ? [size / 60_000, 'm']
        : size < 48 * 3_600_000
          ? [size / 3_600_000, 'h']
          : [size / 86_400_000, 'd'];
  const text = `${Math.floor(count)}${unit}`;
  return ms < 0 ? `in ${text}` : `${text} ago`;
}

/** A moment in the past as an option gives it: `2h`, `7d`, `2026-05-01`, or an ISO moment. Null: not one. */
export function parseMoment(text: string, now = Date.now()): string | null {
  const ago = /^(\d+)(s|m|h|d|w)$/.exec(text);
  if (ago) {
    const unit = { s: 1e3, m: 6e4, h: 36e5, d: 864e5, w: 6048e5 }[ago[2] as 's'];
    return new Date(now - Number(ago[1]) * unit).toISOString();
  }
  if (!/^\d{4}-\d{2}-\d{2}/.test(text)) return null;
  const at = new Date(text);
  return Number.isNaN(at.getTime()) ? null : at.toISOString();
}
