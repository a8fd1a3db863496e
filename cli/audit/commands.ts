import { type Command, command } from '../command.ts';

export const auditCommands: readonly Command[] = [
  command({
    name: 'audit',
    group: 'Administration:',
    summary: 'Read the audit log, newest first',
    options: {
      actor: { kind: 'text', value: 'USER', help: 'Only what this user did' },
      action: { kind: 'text', value: 'ACTION', help: 'Only this: workspace.create, user.update, …' },
      target: { kind: 'text', value: 'NAME', help: 'Only what was done to this, by name or id' },
      since: { kind: 'text', value: 'WHEN', help: '2h, 7d, 2026-05-01 or an ISO moment' },
      until: { kind: 'text', value: 'WHEN', help: 'Likewise' },
      limit: { kind: 'number', value: 'N', help: 'At most so many (default 100)' },
    },
    examples: [
      ['cde audit --since 7d --actor ada', 'what Ada did this week'],
      ['cde audit --action workspace.delete --json', 'with the values before and after'],
    ],
    load: () => import('./audit.ts').then((m) => m.audit),
  }),
];
