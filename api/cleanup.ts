import { z } from 'zod';
import { CleanupCause, Seconds } from './activity.ts';
import { endpoint } from './endpoint.ts';
import { reportKeys } from './idle-values.ts';
import { Id, Moment, PageQuery, page } from './names.ts';

const Days = z.number().int().min(1).max(3650);

/** Set by admins for the installation. Null: no bound. */
export const CleanupPolicy = z.strictObject({
  defaultStopAfterSeconds: Seconds.nullable().describe('For templates that do not say. Null: never'),
  minStopAfterSeconds: Seconds.nullable(),
  maxStopAfterSeconds: Seconds.nullable().describe('If set, workspaces cannot choose never'),
  maxRunSeconds: Seconds.nullable(),
  maxLeaseSeconds: Seconds,
  maxNeverStopDays: z.number().int().min(0).max(3650).describe('0: never-stop is not available'),
  dormantAfterDays: Days.nullable(),
  archiveAfterDays: Days.nullable()
    .default(null)
    .describe('Without a person for so long, a workspace is dormant and missing from lists'),
  deleteAfterDays: Days.nullable()
    .default(null)
    .describe('Without a person for so long, a workspace is deleted; its home is retained'),
  deleteNoticeDays: z
    .number()
    .int()
    .min(1)
    .max(365)
    .default(14)
    .describe('How long before its deletion a workspace says so'),
  brakePercent: z
    .number()
    .int()
    .min(1)
    .max(100)
    .describe(
      'At most this share of the running workspaces stops for idleness within 10 minutes, and of all workspaces is deleted within 24 hours, without an admin’s approval; five are always allowed',
    ),
  holidays: z
    .string()
    .max(500_000)
    .describe('An iCalendar file. On its days no workspace starts by schedule'),
  webhook: z
    .strictObject({
      url: z.url({ protocol: /^https?$/ }).max(2000),
      secret: z
        .string()
        .min(16)
        .max(200)
        .optional()
        .describe('Signs deliveries. Never shown; kept if it is left out. Without one, nothing is signed'),
    })
    .nullable()
    .describe('Receives warnings, stops and announced deletions'),
});
export type CleanupPolicy = z.infer<typeof CleanupPolicy>;

const Etag = z.string().max(100);
export const StoredCleanupPolicy = CleanupPolicy.extend({
  etag: Etag.describe('Identifies this version of the policy'),
});
export type StoredCleanupPolicy = z.infer<typeof StoredCleanupPolicy>;

export const CleanupCandidate = z.object({
  workspaceId: Id,
  workspace: z.string().describe('owner/name'),
  template: z.string(),
  action: z.enum([
    'stop',
    'warn',
    'wait-for-report',
    'hold',
    'make-dormant',
    'archive',
    'announce-deletion',
    'await-deletion',
    'delete',
  ]),
  cause: CleanupCause,
  at: Moment.describe('When it is due'),
  text: z.string().describe('Why, in one sentence'),
});
export type CleanupCandidate = z.infer<typeof CleanupCandidate>;

export const CleanupReport = z.object({
  from: Moment,
  to: Moment,
  rows: z.array(
    z.object({
      key: z.string(),
      runningHours: z.number(),
      stoppedHours: z
        .number()
        .describe('Hours for which workspaces were stopped by a policy, at most 30 days each: saved'),
      stops: z.number().int(),
    }),
  ),
});
export type CleanupReport = z.infer<typeof CleanupReport>;

const tag = 'cleanup';

export const getCleanupPolicy = endpoint({
  method: 'GET',
  path: '/api/v1/cleanup/policy',
  tag,
  summary: 'Show the bounds of idle policies',
  permission: 'cleanup:read',
  reply: StoredCleanupPolicy,
});
export const setCleanupPolicy = endpoint({
  method: 'PUT',
  path: '/api/v1/cleanup/policy',
  tag,
  summary: 'Set the bounds of idle policies',
  permission: 'cleanup:write',
  body: CleanupPolicy.extend({
    etag: Etag.optional().describe(
      'As it was read. If the policy has changed since, nothing is saved and the answer is `cleanup-policy-changed`',
    ),
  }),
  reply: StoredCleanupPolicy,
});
export const previewCleanup = endpoint({
  method: 'GET',
  path: '/api/v1/cleanup/preview',
  tag,
  summary: 'List what cleanup would do now, what is due within an hour, and which deletions are announced',
  permission: 'cleanup:read',
  maxConcurrent: 4,
  query: PageQuery,
  reply: page(CleanupCandidate),
});
export const releaseBrake = endpoint({
  method: 'POST',
  path: '/api/v1/cleanup/release',
  tag,
  summary: 'Allow the stops and deletions that the brake holds back',
  permission: 'cleanup:write',
  body: z.object({}).optional(),
  reply: z.object({ released: z.number().int() }),
});
export const getCleanupReport = endpoint({
  method: 'GET',
  path: '/api/v1/cleanup/report',
  tag,
  summary: 'Show the hours that cleanup saved',
  permission: 'cleanup:read',
  maxConcurrent: 4,
  query: z.object({
    days: z.coerce.number().int().min(1).max(400).default(30),
    by: z.enum(reportKeys).default('template'),
  }),
  reply: CleanupReport,
});
