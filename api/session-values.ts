// Without zod, for the CLI and the dashboard.

/** The lengths of the stretches that sessions are read in. */
export const resolutions = ['auto', '10s', '1m', '1h'] as const;
export type Resolution = Exclude<(typeof resolutions)[number], 'auto'>;
export const resolutionMs: Record<Resolution, number> = { '10s': 10_000, '1m': 60_000, '1h': 3_600_000 };

/** What an overview of connections can be grouped by. */
export const networkGroupings = ['user', 'workspace', 'region', 'client-version', 'path', 'hour'] as const;
export type NetworkGrouping = (typeof networkGroupings)[number];
