import type { Finding } from '@cde/api/findings.ts';
import { jsonb, pgTable, text } from 'drizzle-orm/pg-core';
import { timestamptz } from './columns.ts';

/** migrations/0016_health.sql describes the columns. */
export const healthFindings = pgTable('health_findings', {
  key: text('key').primaryKey(),
  finding: jsonb('finding').$type<Finding & { target: string | null }>().notNull(),
  since: timestamptz('since').notNull(),
  seenAt: timestamptz('seen_at').notNull(),
  announcedAt: timestamptz('announced_at'),
});
