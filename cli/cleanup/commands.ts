import { reportKeys } from '@cde/api/idle-values.ts';
import { type Command, command } from '../command/command.ts';

const group = 'Administration:';

export const cleanupCommands: readonly Command[] = [
  command({
    name: 'cleanup',
    group,
    summary: 'List what cleanup of idle workspaces would do, and why',
    details:
      'Cleanup runs by itself. This lists what it would do now, what is due within an hour, and which deletions are announced.',
    options: {
      dryRun: { kind: 'flag', short: 'n', help: 'List it and change nothing' },
      limit: { kind: 'number', value: 'N', help: 'Maximum number of workspaces (default 1000)' },
    },
    examples: [['cde cleanup --dry-run', 'which workspaces stop soon, which wait, which are held back']],
    load: () => import('./preview.ts').then((m) => m.preview),
  }),
  command({
    name: 'cleanup policy',
    group,
    summary: 'Show or set the bounds of idle policies',
    details:
      'Settings: default-stop-after (a duration such as 2h, or never), min-stop-after, max-stop-after, max-run (a duration, or ' +
      'none), max-lease (a duration), max-never-stop-days, delete-notice-days, brake-percent (numbers), dormant-after-days, ' +
      'archive-after-days, delete-after-days (a number, or none), holidays (@FILE reads an iCalendar file; none removes them), ' +
      'webhook (a URL, or none), webhook-secret (signs deliveries; @FILE reads it). The others stay as they are.',
    options: {
      set: { kind: 'list', value: 'KEY=VALUE', help: 'Set a bound (repeatable)' },
    },
    fields: {
      defaultStopAfterSeconds: 'default-stop-after',
      minStopAfterSeconds: 'min-stop-after',
      maxStopAfterSeconds: 'max-stop-after',
      maxRunSeconds: 'max-run',
      maxLeaseSeconds: 'max-lease',
      maxNeverStopDays: 'max-never-stop-days',
      dormantAfterDays: 'dormant-after-days',
      archiveAfterDays: 'archive-after-days',
      deleteAfterDays: 'delete-after-days',
      deleteNoticeDays: 'delete-notice-days',
      brakePercent: 'brake-percent',
      holidays: 'holidays',
      webhook: 'webhook',
      'webhook.secret': 'webhook-secret',
    },
    examples: [
      ['cde cleanup policy', 'the bounds as they are'],
      ['cde cleanup policy --set max-stop-after=12h --set brake-percent=20', 'change two'],
      [
        'cde cleanup policy --set dormant-after-days=30 --set delete-after-days=180',
        'what happens to workspaces that no person uses',
      ],
      ['cde cleanup policy --set holidays=@holidays.ics', 'no start by schedule on these days'],
    ],
    load: () => import('./policy.ts').then((m) => m.policy),
  }),
  command({
    name: 'cleanup release',
    group,
    summary: 'Allow the stops and deletions that the brake holds back',
    details: 'Look at them first: cde cleanup --dry-run',
    options: { yes: { kind: 'flag', short: 'y', help: 'Skip the confirmation' } },
    examples: [['cde cleanup release --yes', 'without asking']],
    load: () => import('./preview.ts').then((m) => m.release),
  }),
  command({
    name: 'cleanup report',
    group,
    summary: 'Show the hours that cleanup saved',
    options: {
      days: { kind: 'number', value: 'N', help: 'Of this many days (default 30)' },
      by: {
        kind: 'text',
        value: 'KEY',
        help: `Group by ${reportKeys.join(', ')} (default template)`,
        choices: reportKeys,
        completes: reportKeys,
      },
    },
    examples: [
      ['cde cleanup report', 'by template, in the last 30 days'],
      ['cde cleanup report --days 90 --by owner --json', 'by owner, as JSON'],
    ],
    load: () => import('./report.ts').then((m) => m.report),
  }),
];
