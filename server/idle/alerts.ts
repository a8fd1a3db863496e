import { randomUUID } from 'node:crypto';
import type { Finding } from '@cde/api/findings.ts';
import { sql } from 'drizzle-orm';
import type { Queryable } from '../database/pool.ts';
import type { CleanupSettings } from './settings.ts';
import { maxAttempts, ownIsLoopback, post, webhookTask } from './webhook.ts';

/** What the webhook receives when something is wrong with the installation, and when it is over. */
export interface AlertBody {
  id: string;
  kind: 'health-raised' | 'health-resolved';
  at: string;
  /** Since when it is, or was, wrong. */
  since: string;
  /** The same in both. */
  key: string;
  code: string;
  severity: Finding['severity'];
  target: string | null;
  text: string;
  detail: string | null;
  hint: string | null;
  action: { label: string; url: string };
}

export interface Alert {
  kind: AlertBody['kind'];
  key: string;
  since: Date;
  finding: Finding & { target: string | null };
}

const toBody = ({ kind, key, since, finding }: Alert, at: Date, accessUrl: string): AlertBody => ({
  ...{ id: randomUUID(), kind, at: at.toISOString(), since: since.toISOString(), key },
  ...{ code: finding.code, severity: finding.severity, target: finding.target },
  text: kind === 'health-raised' ? finding.message : `Over: ${finding.message}`,
  detail: finding.detail ?? null,
  hint: finding.hint ?? null,
  action: { label: 'Show', url: new URL('/health', accessUrl).href },
});

/** Queues the delivery in the transaction that notes the alerts. Does nothing if there is no webhook. */
export async function enqueueAlerts(
  tx: Queryable,
  alerts: readonly Alert[],
  { now, accessUrl }: { now: Date; accessUrl: string },
): Promise<void> {
  for (const alert of alerts) {
    const body = toBody(alert, now, accessUrl);
    await tx.execute(sql`
      SELECT graphile_worker.add_job(
               ${webhookTask}, payload => json_build_object('alert', ${JSON.stringify(body)}::json),
               max_attempts => ${maxAttempts}::int, priority => 30, job_key => ${`webhook:${body.id}`})
       WHERE EXISTS (SELECT 1 FROM cleanup_settings WHERE jsonb_typeof(policy -> 'webhook') = 'object')`);
  }
}

/** Delivers one alert. Throws if the receiver did not accept it, so that the queue tries again. */
export function makeAlertDelivery(deps: {
  settings: Pick<CleanupSettings, 'webhook'>;
  now: () => Date;
  accessUrl: () => string;
}): (body: AlertBody) => Promise<void> {
  return async (body) => {
    const target = await deps.settings.webhook();
    if (target === null) return;
    const allowLoopback = await ownIsLoopback(deps.accessUrl());
    await post(target, JSON.stringify(body), body.id, deps.now(), { allowLoopback });
  };
}
