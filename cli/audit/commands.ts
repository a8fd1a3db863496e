import { type Command, command } from '../command/command.ts';

export const auditCommands: readonly Command[] = [
  command({
    name: 'audit',
    group: 'Administration:',
    summary: 'Read the audit log, newest first',
    options: {
      actor: { kind: 'text', value: 'USER', help: 'Only actions of this user' },
      action: { kind: 'text', value: 'ACTION', help: 'Only this action: workspace.create, user.update, …' },
      target: { kind: 'text', value: 'NAME', help: 'Only actions on this object, by name or id' },
      since: {
        kind: 'text',
        value: 'WHEN',
        help: 'From this time on: 2h, 7d, 2026-05-01 or an ISO 8601 time',
      },
      until: { kind: 'text', value: 'WHEN', help: 'Up to this time, in the same forms' },
      limit: { kind: 'number', value: 'N', help: 'Maximum number of entries (default 100)' },
    },
    examples: [
      ['cde audit --since 7d --actor ada', 'what Ada did in the last 7 days'],
      ['cde audit --action workspace.delete --json', 'with the values before and after'],
    ],
    load: () => import('./audit.ts').then((m) => m.audit),
  }),
];
