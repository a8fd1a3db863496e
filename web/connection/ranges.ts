const hourMs = 3_600_000;

export const ranges = {
  live: { label: 'Live', ms: hourMs / 4 },
  '1h': { label: 'Last hour', ms: hourMs },
  '6h': { label: 'Last 6 hours', ms: 6 * hourMs },
  '2d': { label: 'Last 2 days', ms: 48 * hourMs },
  '30d': { label: 'Last 30 days', ms: 720 * hourMs },
} as const;
export type RangeName = keyof typeof ranges;
export const rangeNames = Object.keys(ranges) as RangeName[];
