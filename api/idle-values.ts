// Without zod, for the CLI and the dashboard.

export const weekdays = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const;
export type Weekday = (typeof weekdays)[number];

/** What a report of cleanup can be grouped by. */
export const reportKeys = ['template', 'owner', 'cluster', 'day'] as const;
