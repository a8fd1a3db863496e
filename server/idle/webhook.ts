import { createHmac } from 'node:crypto';
import { request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import type { LookupFunction } from 'node:net';
import type { ActivityEvent, CleanupCause } from '@cde/api/activity.ts';
import { isPostponable } from '@cde/api/stop-warnings.ts';
import { type SQL, sql } from 'drizzle-orm';
import type { Database, Queryable } from '../database/pool.ts';
import { addressesOf, findForbidden, hostOf, isLoopback } from '../http/named-addresses.ts';
import type { CleanupSettings, WebhookTarget } from './settings.ts';

/** The name of the job in the queue. */
export const webhookTask = 'webhook';
/** The events that the webhook receives. */
const kinds: readonly ActivityEvent['kind'][] = [
  'warned',
  'stopped',
  'stop-vetoed',
  'archived',
  'deletion-announced',
  'deletion-cancelled',
  'deletion-decided',
];
/** With graphile-worker's backoff the last attempt is about half an hour after the first. */
export const maxAttempts = 8;
/** A warning that arrives after the stop it warns of is worse than none. */
const maxWarningAgeMs = 15 * 60_000;
const timeoutMs = 10_000;

/** What the receiver gets. `id` is the same in each attempt. */
export interface WebhookBody {
  id: string;
  kind: ActivityEvent['kind'];
  at: string;
  workspace: { id: string; name: string; owner: string };
  cause: CleanupCause | null;
  /** Of a warning: when it stops. */
  stopsAt: string | null;
  /** Of an announcement: when it is deleted. */
  deletesAt: string | null;
  text: string;
  /** Of a warning or an announcement: where a person prevents it. Null if nothing does. */
  action: { label: string; url: string } | null;
}

/**
 * Queues the delivery of new events, in the transaction that records them, so that each is delivered once whichever replica
 * sweeps. Does nothing if there is no webhook.
 */
export async function enqueueDeliveries(
  tx: Queryable,
  events: readonly { id: string; kind: string }[],
): Promise<void> {
  const ids = events.filter(({ kind }) => (kinds as string[]).includes(kind)).map(({ id }) => id);
  if (ids.length === 0) return;
  await tx.execute(sql`
    SELECT graphile_worker.add_job(
             ${webhookTask}, payload => json_build_object('eventId', id), max_attempts => ${maxAttempts}::int,
             priority => 30, job_key => 'webhook:' || id)
      FROM unnest(${sql.param(ids)}::text[]) AS given (id)
     WHERE EXISTS (SELECT 1 FROM cleanup_settings WHERE jsonb_typeof(policy -> 'webhook') = 'object')`);
}

interface EventRow extends Record<string, unknown> {
  id: string;
  kind: ActivityEvent['kind'];
  at: Date;
  cause: CleanupCause | null;
  text: string;
  workspaceId: string;
  name: string;
  owner: string;
  stopsAt: string | null;
  deletesAt: string | null;
}

/** Delivers one event. Throws if the receiver did not accept it, so that the queue tries again. */
export function makeWebhook(deps: {
  database: Database;
  settings: Pick<CleanupSettings, 'webhook'>;
  now: () => Date;
  accessUrl: () => string;
}): (eventId: string) => Promise<void> {
  const { database, settings, now, accessUrl } = deps;

  async function findEvent(condition: SQL): Promise<EventRow | undefined> {
    const { rows } = await database.db.execute<EventRow>(sql`
      SELECT e.id, e.kind, e.at, e.cause, e.text, w.id AS "workspaceId", w.name, u.username AS owner,
             a.stops_at AS "stopsAt", a.deletes_at AS "deletesAt"
        FROM activity_events e
        JOIN workspaces w ON w.id = e.workspace_id
        JOIN users u ON u.id = w.owner_id
        LEFT JOIN workspace_activity a ON a.workspace_id = w.id
       WHERE ${condition}`);
    return rows[0];
  }

  function toBody(row: EventRow): WebhookBody {
    const isWarning = row.kind === 'warned';
    const label =
      isWarning && isPostponable(row.cause)
        ? 'Keep awake'
        : row.kind === 'deletion-announced'
          ? 'Keep'
          : null;
    const path = `/workspaces/${encodeURIComponent(row.owner)}/${encodeURIComponent(row.name)}`;
    return {
      id: row.id,
      kind: row.kind,
      at: new Date(row.at).toISOString(),
      workspace: { id: row.workspaceId, name: `${row.owner}/${row.name}`, owner: row.owner },
      cause: row.cause,
      stopsAt: isWarning && row.stopsAt !== null ? new Date(row.stopsAt).toISOString() : null,
      deletesAt:
        row.kind === 'deletion-announced' && row.deletesAt !== null
          ? new Date(row.deletesAt).toISOString()
          : null,
      text: row.text,
      action: label === null ? null : { label, url: new URL(path, accessUrl()).href },
    };
  }

  return async (eventId) => {
    const target = await settings.webhook();
    const row = await findEvent(sql`e.id = ${eventId}`);
    // The webhook was removed, or the workspace with its events.
    if (target === null || !row) return;
    if (row.kind === 'warned' && now().getTime() - new Date(row.at).getTime() > maxWarningAgeMs) return;
    const allowLoopback = await ownIsLoopback(accessUrl());
    await post(target, JSON.stringify(toBody(row)), row.id, now(), { allowLoopback });
  };
}

/** `t=UNIX,v1=HEX`: HMAC-SHA256 of the time, a dot and the body, so that an old delivery cannot be sent again. */
export function signature(secret: string, at: Date, body: string): string {
  const seconds = Math.floor(at.getTime() / 1000);
  return `t=${seconds},v1=${createHmac('sha256', secret).update(`${seconds}.${body}`).digest('hex')}`;
}

/** A server on this machine may post to this machine. */
export const ownIsLoopback = async (accessUrl: string): Promise<boolean> =>
  (await addressesOf(hostOf(new URL(accessUrl)))).some(isLoopback);

/** Posts to the addresses that were checked, and follows no redirect: the name may lead elsewhere a moment later. */
export async function post(
  { url, secret }: WebhookTarget,
  body: string,
  id: string,
  at: Date,
  options: { allowLoopback: boolean },
): Promise<void> {
  const target = new URL(url);
  const addresses = await addressesOf(hostOf(target));
  if (addresses.length === 0) throw new Error(`the webhook's host ${target.hostname} cannot be resolved`);
  const forbidden = findForbidden(addresses, options);
  if (forbidden !== null) throw new Error(`the webhook cannot be at ${target.host}. ${forbidden}`);
  const found = addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }));
  const lookup: LookupFunction = (_host, { all }, callback) =>
    all ? callback(null, found) : callback(null, found[0]!.address, found[0]!.family);
  const request = target.protocol === 'https:' ? requestHttps : requestHttp;
  await new Promise<void>((resolve, reject) => {
    const sent = request(target, {
      method: 'POST',
      lookup,
      agent: false,
      signal: AbortSignal.timeout(timeoutMs),
      headers: {
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(body),
        'cde-event-id': id,
        ...(secret !== null && { 'cde-signature': signature(secret, at, body) }),
      },
    });
    sent.once('error', reject);
    sent.once('response', (response) => {
      response.once('error', reject);
      // Only the status matters, and the body may never end.
      response.destroy();
      const { statusCode = 0 } = response;
      if (statusCode >= 200 && statusCode < 300) resolve();
      else reject(new Error(`the webhook at ${target.host} replied with ${statusCode}`));
    });
    sent.end(body);
  });
}
