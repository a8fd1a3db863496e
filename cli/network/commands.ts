import { networkGroupings } from '@cde/api/session-values.ts';
import { type Command, command } from '../command/command.ts';

const group = 'Administration:';
const when = 'in the forms 2h, 7d, 2026-05-01 or an ISO 8601 time';

export const networkCommands: readonly Command[] = [
  command({
    name: 'network',
    group,
    summary: 'Summarize the connections of sessions: latency by leg, incidents by cause, the worst',
    details:
      'Of the sessions of everybody if your role can see them, else of your own. Percentiles are over minutes in use, or hours if ' +
      'the range is longer than two days: P50 is the median of their medians, and in 95 % of them 95 % of the round trips took ' +
      'at most P95. Time counts as slow if one answer in twenty took 150 ms or longer. The last five minutes may be missing.',
    options: {
      by: {
        kind: 'text',
        value: 'KEY',
        help: `Group by ${networkGroupings.join(', ')} (default region)`,
        choices: networkGroupings,
        completes: networkGroupings,
      },
      since: { kind: 'text', value: 'WHEN', help: `From this time on, ${when} (default 24h)` },
      until: { kind: 'text', value: 'WHEN', help: 'Up to this time, in the same forms' },
    },
    examples: [
      ['cde network', 'by region, in the last 24 hours'],
      ['cde network --by user --since 7d', 'who has noticeable latency'],
      ['cde network --by hour --since 30d', 'at which hours, in the time zone of this machine'],
      ["cde network --json | jq '.worst[].session.workspace'", 'for programs'],
    ],
    load: () => import('./overview.ts').then((m) => m.overview),
  }),
  command({
    name: 'network sessions',
    group,
    summary: 'List recorded sessions, the newest first',
    details:
      'Sessions of everybody if your role can see them, else your own. Sessions of the terminal in the dashboard are not recorded.',
    options: {
      user: { kind: 'text', value: 'USER', help: 'Only of this user' },
      workspace: {
        kind: 'text',
        value: 'WORKSPACE',
        help: 'Only with this workspace',
        completes: 'workspaces',
      },
      active: { kind: 'flag', help: 'Only those that are used now' },
      past: { kind: 'flag', help: 'Only the others' },
      since: { kind: 'text', value: 'WHEN', help: `Only those seen after this, ${when}` },
      limit: { kind: 'number', value: 'N', help: 'Maximum number of sessions (default 100)' },
    },
    examples: [
      ['cde network sessions --active', 'who is connected, and through what'],
      ['cde network sessions --user ada --since 7d', "Ada's in the last 7 days"],
    ],
    load: () => import('./sessions.ts').then((m) => m.sessions),
  }),
  command({
    name: 'network session',
    group,
    summary: 'Show what a session recorded, by leg, and its incidents',
    arguments: { session: { help: 'The id that `cde network sessions` prints' } },
    options: {
      since: { kind: 'text', value: 'WHEN', help: `From this time on, ${when} (default: its start)` },
      until: { kind: 'text', value: 'WHEN', help: 'Up to this time, in the same forms' },
      resolution: {
        kind: 'text',
        value: 'LENGTH',
        help: 'Length of a row: 10s, 1m, 1h (default: the finest that gives at most 1,500 rows)',
        choices: ['auto', '10s', '1m', '1h'],
        completes: ['auto', '10s', '1m', '1h'],
      },
    },
    examples: [
      ['cde network session 3f0c… --since 1h', 'the last hour'],
      ['cde network session 3f0c… --resolution 1h --json', 'by the hour, for programs'],
    ],
    load: () => import('./session.ts').then((m) => m.session),
  }),
];
