import { readFile } from 'node:fs/promises';
import type { CleanupPolicy } from '@cde/api/cleanup.ts';
import { parseDuration } from '@cde/api/durations.ts';
import { spanText } from '@cde/api/idle-text.ts';
import type { Context } from '../context.ts';
import { getCleanupPolicy, setCleanupPolicy } from '../endpoints.ts';
import { usage } from '../failure.ts';
import { clean } from '../output.ts';
import { fields, type Result, result } from '../result.ts';

type Reader = (key: string, text: string) => unknown;

interface Setting {
  field: keyof CleanupPolicy;
  read: Reader;
}

const isNone = (text: string) => text === 'none' || text === 'never';

function readDuration(key: string, text: string): number {
  const seconds = parseDuration(text);
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
  'default-stop-after': { field: 'defaultStopAfterSeconds', read: orNone(readDuration) },
  'min-stop-after': { field: 'minStopAfterSeconds', read: orNone(readDuration) },
  'max-stop-after': { field: 'maxStopAfterSeconds', read: orNone(readDuration) },
  'max-run': { field: 'maxRunSeconds', read: orNone(readDuration) },
  'max-lease': { field: 'maxLeaseSeconds', read: readDuration },
  'max-never-stop-days': { field: 'maxNeverStopDays', read: readCount },
  'dormant-after-days': { field: 'dormantAfterDays', read: orNone(readCount) },
  'archive-after-days': { field: 'archiveAfterDays', read: orNone(readCount) },
  'delete-after-days': { field: 'deleteAfterDays', read: orNone(readCount) },
  'delete-notice-days': { field: 'deleteNoticeDays', read: readCount },
  'brake-percent': { field: 'brakePercent', read: readCount },
  holidays: { field: 'holidays', read: (_, text) => (isNone(text) ? '' : text) },
  webhook: { field: 'webhook', read: orNone((_, url) => ({ url })) },
  'webhook-secret': { field: 'webhook', read: (_, secret) => ({ secret }) },
};

export async function policy(context: Context, input: { set: string[] }): Promise<Result> {
  const pairs = await Promise.all(input.set.map(readPair));
  const client = await context.client();
  const before = await client.call(getCleanupPolicy);
  const changed: Record<string, unknown> = { ...before };
  for (const { field, value } of pairs)
    changed[field] =
      field === 'webhook' && value !== null
        ? { ...(changed.webhook as object), ...(value as object) }
        : value;
  const after =
    pairs.length === 0 ? before : await client.call(setCleanupPolicy, { body: changed as CleanupPolicy });
  return result(after, () => [fields(rows(after))]);
}

async function readPair(pair: string): Promise<{ field: string; value: unknown }> {
  const at = pair.indexOf('=');
  const key = pair.slice(0, Math.max(0, at)).trim();
  const setting = Object.hasOwn(settings, key) ? settings[key] : undefined;
  if (!setting)
    throw usage(
      `--set takes KEY=VALUE, not ${JSON.stringify(pair)}.`,
      `The settings are: ${Object.keys(settings).join(', ')}.`,
    );
  const text = pair.slice(at + 1).trim();
  const isFile = (key === 'holidays' || key === 'webhook-secret') && text.startsWith('@');
  const value = setting.read(key, isFile ? (await readFile(text.slice(1), 'utf8')).trim() : text);
  return { field: setting.field, value };
}

function rows(bounds: CleanupPolicy): [string, string][] {
  const span = (seconds: number | null, none: string) => (seconds === null ? none : spanText(seconds * 1000));
  const days = (count: number | null | undefined) => (count == null ? 'none' : `${count}`);
  const { maxNeverStopDays, holidays } = bounds;
  const events = holidays.match(/^BEGIN:VEVENT/gm)?.length ?? 0;
  return [
    ['default-stop-after', span(bounds.defaultStopAfterSeconds, 'never')],
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
