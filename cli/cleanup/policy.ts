import { readFile } from 'node:fs/promises';
import type { CleanupPolicy, StoredCleanupPolicy } from '@cde/api/cleanup.ts';
import type { Client } from '@cde/api/client.ts';
import { parseDuration } from '@cde/api/durations.ts';
import { boundOnDefault, spanText } from '@cde/api/idle-text.ts';
import type { Context } from '../command/context.ts';
import { fields, type Result, result } from '../command/result.ts';
import { getCleanupPolicy, setCleanupPolicy } from '../connection/endpoints.ts';
import { toFailure, usage } from '../failure/failure.ts';
import { clean } from '../output/output.ts';

type Reader = (key: string, text: string) => unknown;

interface Setting {
  field: keyof CleanupPolicy;
  read: Reader;
  /** A value. */
  example: string;
}

const isNone = (text: string) => text === 'none' || text === 'never';

function readDuration(key: string, text: string): number {
  const seconds = parseDuration(text);
  if (seconds === null && isNone(text))
    throw usage(`${key} cannot be ${text}.`, 'It needs a length of time, for example 24h.');
  if (seconds === null)
    throw usage(`${key} takes a length of time, not ${JSON.stringify(text)}.`, 'For example 2h or 7d.');
  return seconds;
}

function readCount(key: string, text: string): number {
  if (!/^\d{1,6}$/.test(text)) throw usage(`${key} takes a whole number, not ${JSON.stringify(text)}.`);
  return Number(text);
}

const orNone =
  (read: Reader): Reader =>
  (key, text) =>
    isNone(text) ? null : read(key, text);

const settings: Record<string, Setting> = {
  'default-stop-after': { example: '2h', field: 'defaultStopAfterSeconds', read: orNone(readDuration) },
  'min-stop-after': { example: '15m', field: 'minStopAfterSeconds', read: orNone(readDuration) },
  'max-stop-after': { example: '12h', field: 'maxStopAfterSeconds', read: orNone(readDuration) },
  'max-run': { example: '7d', field: 'maxRunSeconds', read: orNone(readDuration) },
  'max-lease': { example: '24h', field: 'maxLeaseSeconds', read: readDuration },
  'max-never-stop-days': { example: '30', field: 'maxNeverStopDays', read: readCount },
  'dormant-after-days': { example: '60', field: 'dormantAfterDays', read: orNone(readCount) },
  'archive-after-days': { example: '90', field: 'archiveAfterDays', read: orNone(readCount) },
  'delete-after-days': { example: '180', field: 'deleteAfterDays', read: orNone(readCount) },
  'delete-notice-days': { example: '14', field: 'deleteNoticeDays', read: readCount },
  'brake-percent': { example: '20', field: 'brakePercent', read: readCount },
  holidays: { example: '@holidays.ics', field: 'holidays', read: (_, text) => (isNone(text) ? '' : text) },
  webhook: { example: 'https://example.com/hook', field: 'webhook', read: orNone((_, url) => ({ url })) },
  'webhook-secret': { example: '@FILE', field: 'webhook', read: (_, secret) => ({ secret }) },
};

export async function policy(context: Context, input: { set: string[] }): Promise<Result> {
  const pairs = await Promise.all(input.set.map(readPair));
  const client = await context.client();
  const after = pairs.length === 0 ? await client.call(getCleanupPolicy) : await save(client, pairs);
  return result(after, () => [fields(rows(after))]);
}

/** How often a change is made again because another admin has changed the policy meanwhile. */
const maxTries = 5;

/** Changes only what was named. */
async function save(client: Client, pairs: Change[]): Promise<StoredCleanupPolicy> {
  for (let tries = 1; ; tries++) {
    const changed: Record<string, unknown> = { ...(await client.call(getCleanupPolicy)) };
    for (const { field, value } of pairs)
      changed[field] =
        field === 'webhook' && value !== null
          ? { ...(changed.webhook as object), ...(value as object) }
          : value;
    try {
      return await client.call(setCleanupPolicy, { body: changed as StoredCleanupPolicy });
    } catch (error) {
      if (toFailure(error).code !== 'cleanup-policy-changed' || tries >= maxTries) throw error;
    }
  }
}

interface Change {
  field: string;
  value: unknown;
}

async function readPair(pair: string): Promise<Change> {
  const at = pair.indexOf('=');
  const key = (at < 0 ? pair : pair.slice(0, at)).trim();
  const setting = Object.hasOwn(settings, key) ? settings[key] : undefined;
  if (!setting)
    throw usage(
      key === ''
        ? `--set takes KEY=VALUE, not ${JSON.stringify(pair)}.`
        : `There is no setting ${JSON.stringify(key)}.`,
      `These can be set: ${Object.keys(settings).join(', ')}.`,
    );
  if (at < 0) throw usage(`--set ${key} needs a value.`, `For example: --set ${key}=${setting.example}`);
  const text = pair.slice(at + 1).trim();
  const isFile = (key === 'holidays' || key === 'webhook-secret') && text.startsWith('@');
  const value = setting.read(key, isFile ? (await readFile(text.slice(1), 'utf8')).trim() : text);
  return { field: setting.field, value };
}

function defaultStopAfter(bounds: CleanupPolicy): string {
  const { defaultStopAfterSeconds: seconds } = bounds;
  if (seconds === null) return 'never';
  const bound = boundOnDefault(bounds);
  const by = bound && (bound.setting === 'maxStopAfterSeconds' ? 'max-stop-after' : 'min-stop-after');
  return `${spanText(seconds * 1000)}${bound ? ` (${bound.text} by ${by})` : ''}`;
}

function rows(bounds: CleanupPolicy): [string, string][] {
  const span = (seconds: number | null, none: string) => (seconds === null ? none : spanText(seconds * 1000));
  const days = (count: number | null | undefined) => (count == null ? 'none' : `${count}`);
  const { maxNeverStopDays, holidays } = bounds;
  const events = holidays.match(/^BEGIN:VEVENT/gm)?.length ?? 0;
  return [
    ['default-stop-after', defaultStopAfter(bounds)],
    ['min-stop-after', span(bounds.minStopAfterSeconds, 'none')],
    ['max-stop-after', span(bounds.maxStopAfterSeconds, 'none')],
    ['max-run', span(bounds.maxRunSeconds, 'none')],
    ['max-lease', span(bounds.maxLeaseSeconds, 'none')],
    [
      'max-never-stop-days',
      maxNeverStopDays === 0 ? '0 (never-stop is not available)' : `${maxNeverStopDays}`,
    ],
    ['dormant-after-days', days(bounds.dormantAfterDays)],
    ['archive-after-days', days(bounds.archiveAfterDays)],
    ['delete-after-days', days(bounds.deleteAfterDays)],
    ['delete-notice-days', days(bounds.deleteNoticeDays)],
    ['brake-percent', `${bounds.brakePercent}`],
    [
      'holidays',
      holidays === '' ? 'none' : `an iCalendar file with ${events} ${events === 1 ? 'event' : 'events'}`,
    ],
    ['webhook', bounds.webhook ? clean(bounds.webhook.url) : 'none'],
  ];
}
