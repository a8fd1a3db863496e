import { type Command, command } from '../command/command.ts';

export const healthCommands: readonly Command[] = [
  command({
    name: 'health',
    group: 'Administration:',
    summary: 'Find out what is wrong with the installation',
    details:
      'Asks the server to check its database, satellites and their certificates, clusters, nodes, builds, homes, the recordings of ' +
      'sessions and the other replicas. Prints what is wrong, since when, and what to do; what another fault explains is left ' +
      'out. Exits with 0 if there are no errors (warnings do not count), else with 1. For this machine: cde doctor',
    examples: [
      ['cde health', 'what needs attention'],
      ["cde health --json | jq -r '.findings[].code'", 'for monitoring'],
    ],
    load: () => import('./health.ts').then((m) => m.health),
  }),
];
