// Providers need these too, and stand below.
export { formatQuantity, parseQuantity } from '../providers/quantity.ts';

const milliseconds: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** Milliseconds of a template's duration (`90s`, `10m`, `2h`); null when it is none. */
export function parseDuration(duration: string): number | null {
  const match = /^(\d{1,9})(ms|s|m|h)$/.exec(duration);
  return match ? Number(match[1]) * milliseconds[match[2]!]! : null;
}
