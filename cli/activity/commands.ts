import { type Command, command } from '../command/command.ts';

const group = 'Workspaces:';
const workspace = { workspace: { help: 'NAME or OWNER/NAME', completes: 'workspaces' } } as const;
const onOff = ['on', 'off'] as const;

export const activityCommands: readonly Command[] = [
  command({
    name: 'activity',
    group,
    summary: 'Show what keeps a workspace awake, when it stops, and what happened',
    details:
      'Lists when each kind of activity was last seen and who or what caused it, who keeps the workspace awake, the policy ' +
      'that applies, and the history of activity and stops, newest first.',
    arguments: workspace,
    options: {
      limit: { kind: 'number', value: 'N', help: 'Maximum number of history entries (default 20)' },
      all: { kind: 'flag', short: 'a', help: 'The whole history' },
    },
    examples: [
      ['cde activity web', 'why it is awake, or why it stopped'],
      ['cde activity web --all --json', 'everything, as JSON'],
    ],
    load: () => import('./activity.ts').then((m) => m.activity),
  }),
  command({
    name: 'keep',
    group,
    summary: 'Keep a workspace that no person has used for long',
    details:
      'Counts the days without a person from now, without a start: an announced deletion is cancelled, and an archived ' +
      'workspace is listed again.',
    arguments: workspace,
    examples: [['cde keep web', 'do not delete it yet']],
    load: () => import('./keep.ts').then((m) => m.keep),
  }),
  command({
    name: 'keep-awake',
    group,
    summary: 'Keep a workspace awake for some time, or while a command runs in it',
    details:
      'With a command, runs it in the workspace like `cde ssh` and keeps the workspace awake until it ends, for at most ' +
      '--for. In a workspace, omit the name: no login is needed, and the command runs there. `--end ID` ends one keep-awake of ' +
      'that workspace. As with ssh, options go before the command.',
    endsOptions: true,
    arguments: {
      workspace: { ...workspace.workspace, optional: true },
      command: { help: 'The command to run', many: true, optional: true },
    },
    options: {
      for: {
        kind: 'text',
        value: 'DURATION',
        help: 'How long: 30m, 3h, 8h (default 1h; with a command, until it ends)',
      },
      reason: { kind: 'text', value: 'TEXT', help: 'Why; shown to everyone who sees the workspace' },
      end: { kind: 'flag', help: 'End every keep-awake of the workspace' },
      start: { kind: 'flag', help: 'Start a stopped workspace without asking, for a command' },
    },
    fields: { seconds: '--for' },
    examples: [
      ['cde keep-awake web --for 3h --reason "demo at 4"', 'for three hours'],
      ['cde keep-awake web -- ./train.sh', 'while the command runs'],
      ['cde keep-awake web --end', 'let it stop again'],
      ['cde keep-awake --for 30m', 'in the workspace itself'],
    ],
    load: () => import('./keep-awake.ts').then((m) => m.keepAwake),
  }),
  command({
    name: 'schedule',
    group,
    summary: 'Show or choose when a workspace stops and starts by itself',
    details:
      'Without options, shows what applies. Your choices win over those of the template, within the bounds of the ' +
      'installation; what you do not name stays as it is.',
    arguments: workspace,
    options: {
      stopAfter: {
        kind: 'text',
        value: 'DURATION',
        help: 'Stop after this long without activity: 90m, 2h, never, or default (as the template says)',
      },
      dailyStart: { kind: 'text', value: 'HH:MM', help: 'Start it at this time' },
      dailyStop: { kind: 'text', value: 'HH:MM', help: 'Stop it at this time, once it is not in use' },
      days: { kind: 'text', value: 'DAYS', help: 'Of these days: mon-fri (default), or mon,wed,sat' },
      timeZone: {
        kind: 'text',
        value: 'ZONE',
        help: 'Time zone of the schedule, for example Europe/Vienna (default: that of this machine)',
      },
      schedule: { kind: 'no', help: 'No daily start and stop, even if the template has one' },
      neverStop: {
        kind: 'text',
        value: 'DURATION',
        help: 'Do not stop it for idleness for this long; needs --reason',
      },
      reason: { kind: 'text', value: 'TEXT', help: 'Why it must not stop' },
      noNeverStop: { kind: 'flag', help: 'Let it stop again' },
      startOnConnect: {
        kind: 'text',
        value: 'on/off',
        help: 'Start it without asking when you connect while it is stopped. Editors that reconnect never start it',
        choices: onOff,
        completes: onOff,
      },
    },
    fields: {
      stopAfterSeconds: '--stop-after',
      schedule: '--daily-start or --daily-stop',
      'schedule.start': '--daily-start',
      'schedule.stop': '--daily-stop',
      'schedule.days': '--days',
      'schedule.timeZone': '--time-zone',
      neverStop: '--never-stop',
      'neverStop.reason': '--reason',
    },
    examples: [
      ['cde schedule web', 'what applies, and why'],
      ['cde schedule web --stop-after 4h', 'after four hours without activity'],
      ['cde schedule web --daily-start 08:30 --daily-stop 19:00 --days mon-fri', 'on working days'],
      ['cde schedule web --never-stop 7d --reason "load test"', 'not before next week'],
    ],
    load: () => import('./schedule.ts').then((m) => m.schedule),
  }),
];
