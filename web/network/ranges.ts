const hourMs = 3_600_000;
export const networkRanges = {
  '24h': { label: 'Last 24 hours', ms: 24 * hourMs },
  '7d': { label: 'Last 7 days', ms: 168 * hourMs },
  '30d': { label: 'Last 30 days', ms: 720 * hourMs },
  '1y': { label: 'Last year', ms: 8760 * hourMs },
} as const;
export type NetworkRange = keyof typeof networkRanges;
export const networkRangeNames = Object.keys(networkRanges) as NetworkRange[];
