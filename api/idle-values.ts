// Without zod, for the CLI and the dashboard.

export const weekdays = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const;
export type Weekday = (typeof weekdays)[number];
/** The days of a schedule that names none. */
export const workdays: Weekday[] = ['mon', 'tue', 'wed', 'thu', 'fri'];

/** What a report of cleanup can be grouped by. */
export const reportKeys = ['template', 'owner', 'cluster', 'node-pool', 'day'] as const;
export type ReportKey = (typeof reportKeys)[number];
