import { createHash } from 'node:crypto';
import { type CleanupPolicy, getCleanupPolicy, setCleanupPolicy } from '@cde/api/cleanup.ts';
import { spanText } from '@cde/api/idle-text.ts';
import { Problem } from '@cde/api/problem.ts';
import { sql } from 'drizzle-orm';
import type { FastifyInstance } from 'fastify';
import { makeCoalescer } from '../database/coalesce.ts';
import { cleanupSettings } from '../database/idle-schema.ts';
import type { Database, Queryable } from '../database/pool.ts';
import type { Caller } from '../http/actor.ts';
import { addressesOf, findForbidden, hostOf, isLoopback } from '../http/named-addresses.ts';
import { serve } from '../http/serve.ts';
import { writeAudit } from '../identity/audit/audit.ts';
import type { Keys } from '../identity/keys.ts';
import { HolidaysError, readHolidays } from './holidays.ts';

/** What holds until an admin changes it. */
export const defaultCleanupPolicy: CleanupPolicy = {
  defaultStopAfterSeconds: 3600,
  minStopAfterSeconds: 300,
  maxStopAfterSeconds: null,
  maxRunSeconds: null,
  maxLeaseSeconds: 24 * 3600,
  maxNeverStopDays: 30,
  dormantAfterDays: null,
  archiveAfterDays: null,
  deleteAfterDays: null,
  deleteNoticeDays: 14,
  brakePercent: 20,
  holidays: '',
  webhook: null,
};

/** Where warnings and stops are posted. `secret` signs them. */
export interface WebhookTarget {
  url: string;
  secret: string | null;
}

/** As in the database: the secret is sealed, in base64. Settings that are newer than the row are missing. */
interface StoredPolicy extends Partial<Omit<CleanupPolicy, 'webhook'>> {
  webhook?: { url: string; sealedSecret?: string } | null;
}

export interface CleanupSettings {
  /** The bounds, without the webhook's secret. At most `cachedMs` old. */
  read(): Promise<CleanupPolicy>;
  /** The same as of now, with what identifies this version. */
  readLatest(): Promise<CleanupPolicy & { etag: string }>;
  /** When they were changed last. Unix time in ms; 0: never. */
  changedAt(): Promise<number>;
  webhook(): Promise<WebhookTarget | null>;
  /** Throws `cleanup-policy-changed` if `etag` is given and not that of the current version. */
  write(
    caller: Caller,
    policy: CleanupPolicy & { etag?: string | undefined },
  ): Promise<CleanupPolicy & { etag: string }>;
}

/** Sweeps and reports of agents read them all the time. */
const cachedMs = 5_000;

export function makeCleanupSettings(deps: {
  database: Database;
  keys: Pick<Keys, 'seal' | 'open'>;
  now: () => Date;
  /** Where users reach the server: with port 0 known only once it listens. */
  accessUrl: () => string;
}): CleanupSettings {
  const { database, keys, now } = deps;
  const coalesce = makeCoalescer<{ stored: StoredPolicy; changedAt: number }>();
  let cached: { stored: StoredPolicy; changedAt: number; until: number } | null = null;

  async function load(tx: Queryable): Promise<{ stored: StoredPolicy; changedAt: number }> {
    const [row] = await tx.select().from(cleanupSettings);
    return { stored: (row?.policy ?? {}) as StoredPolicy, changedAt: row?.updatedAt.getTime() ?? 0 };
  }
  async function current(): Promise<{ stored: StoredPolicy; changedAt: number }> {
    const at = now().getTime();
    if (cached && at < cached.until && at >= cached.until - cachedMs) return cached;
    const loaded = await coalesce('policy', () => load(database.db));
    cached = { ...loaded, until: at + cachedMs };
    return loaded;
  }

  /** A secret that is left out stays, so that a form which never got to see it can be saved. */
  function toStored(policy: CleanupPolicy, before: StoredPolicy): StoredPolicy {
    const { webhook } = policy;
    if (webhook === null) return { ...policy, webhook };
    const sealedSecret =
      webhook.secret === undefined
        ? before.webhook?.sealedSecret
        : keys.seal(Buffer.from(webhook.secret)).toString('base64');
    return { ...policy, webhook: { url: webhook.url, ...(sealedSecret && { sealedSecret }) } };
  }

  return {
    read: async () => toPolicy((await current()).stored),
    changedAt: async () => (await current()).changedAt,
    async webhook() {
      const { webhook } = (await current()).stored;
      if (!webhook) return null;
      const { url, sealedSecret } = webhook;
      return {
        url,
        secret: sealedSecret ? keys.open(Buffer.from(sealedSecret, 'base64')).toString() : null,
      };
    },
    async readLatest() {
      const { stored } = await load(database.db);
      return { ...toPolicy(stored), etag: etagOf(stored) };
    },
    async write(caller, { etag, ...policy }) {
      checkBounds(policy);
      checkHolidays(policy.holidays, now());
      if (policy.webhook) await checkWebhookUrl(policy.webhook.url, deps.accessUrl());
      const stored = await database.db.transaction(async (tx) => {
        // Two admins who save at once: each audit entry has what it replaced.
        await tx.execute(sql`LOCK TABLE cleanup_settings IN SHARE ROW EXCLUSIVE MODE`);
        const { stored: before } = await load(tx);
        if (etag !== undefined && etag !== etagOf(before))
          throw new Problem(
            'cleanup-policy-changed',
            'Another admin has changed the cleanup policy since you read it.',
            { detail: 'Nothing was saved.', hint: 'Read it again, then make your change.' },
          );
        const after = toStored(policy, before);
        const row = { policy: after as CleanupPolicy, updatedAt: now() };
        await tx
          .insert(cleanupSettings)
          .values({ id: 1, ...row })
          .onConflictDoUpdate({ target: cleanupSettings.id, set: row });
        await writeAudit(tx, caller, {
          action: 'cleanup.policy',
          targetType: 'settings',
          targetId: 'cleanup',
          targetName: 'cleanup policy',
          before: forAudit(before),
          after: forAudit(after),
        });
        return after;
      });
      cached = null;
      return { ...toPolicy(stored), etag: etagOf(stored) };
    },
  };
}

/** Of the content, with the sealed secret. Keys are sorted because the database orders them in its own way. */
function etagOf(stored: StoredPolicy): string {
  const sorted = JSON.stringify(stored, (_, value) =>
    value !== null && typeof value === 'object' && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  );
  return createHash('sha256').update(sorted).digest('base64url').slice(0, 22);
}

function toPolicy({ webhook, ...stored }: StoredPolicy): CleanupPolicy {
  return { ...defaultCleanupPolicy, ...stored, webhook: webhook ? { url: webhook.url } : null };
}

/** The audit log needs to show that the file or the secret has changed, and neither of them. */
function forAudit(stored: StoredPolicy): Record<string, unknown> {
  const policy = toPolicy(stored);
  const digest = (text: string) => createHash('sha256').update(text).digest('hex').slice(0, 12);
  const sealed = stored.webhook?.sealedSecret;
  return {
    ...policy,
    holidays: policy.holidays && `${policy.holidays.length} characters, sha256 ${digest(policy.holidays)}…`,
    webhook: policy.webhook && {
      ...policy.webhook,
      secret: sealed ? `set, version ${digest(sealed)}` : 'none',
    },
  };
}

function checkBounds(policy: CleanupPolicy): void {
  const { defaultStopAfterSeconds: standard, minStopAfterSeconds: min, maxStopAfterSeconds: max } = policy;
  if (max === null) return;
  const longest = spanText(max * 1000);
  if (min !== null && min > max)
    throw new Problem('bad-request', 'The shortest time to stop after is longer than the longest.', {
      issues: [
        { path: 'minStopAfterSeconds', message: `must be at most ${longest}, the longest that is allowed` },
      ],
    });
  if (standard === null)
    throw new Problem(
      'bad-request',
      `The default cannot be never if the longest time to stop after is ${longest}.`,
      {
        issues: [
          {
            path: 'defaultStopAfterSeconds',
            message: `cannot be never, because workspaces stop after at most ${longest} without activity: set a time, or remove that maximum`,
          },
        ],
      },
    );
}

function checkHolidays(text: string, now: Date): void {
  const year = now.getUTCFullYear();
  try {
    // Some years more than are used, so that the file stays readable as time passes.
    readHolidays(text, { from: year - 1, to: year + 5 });
  } catch (error) {
    if (!(error instanceof HolidaysError)) throw error;
    throw new Problem('bad-request', 'The holidays cannot be used.', {
      detail: error.message,
      hint: 'Export the calendar as an iCalendar file (.ics) with one all-day event for each holiday.',
      issues: [{ path: 'holidays', message: 'must be an iCalendar file' }],
    });
  }
}

/** The server posts to this URL, so it must not lead to the machine's own services or to a cloud's metadata. */
async function checkWebhookUrl(url: string, accessUrl: string): Promise<void> {
  const ownIsLoopback = (await addressesOf(hostOf(new URL(accessUrl)))).some(isLoopback);
  const forbidden = findForbidden(await addressesOf(hostOf(new URL(url))), { allowLoopback: ownIsLoopback });
  if (forbidden === null) return;
  throw new Problem('bad-request', 'The webhook cannot be at this address.', {
    detail: forbidden,
    hint: 'Use an address at which the server can reach the receiver.',
    issues: [{ path: 'webhook.url', message: 'must not be a loopback, link-local or metadata address' }],
  });
}

export function cleanupSettingsRoutes(app: FastifyInstance, deps: { settings: CleanupSettings }): void {
  const { settings } = deps;
  serve(app, getCleanupPolicy, () => settings.readLatest());
  serve(app, setCleanupPolicy, (input) => settings.write(input, input.body));
}
