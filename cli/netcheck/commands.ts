import { type Command, command } from '../command/command.ts';

export const netcheckCommands: readonly Command[] = [
  command({
    name: 'netcheck',
    group: 'Connect:',
    summary: 'Measure the network between this machine and the satellites',
    details:
      'Checks HTTPS, UDP, NAT and proxies. Without --throughput it sends a few requests and 20 small datagrams to each ' +
      'satellite and takes about 4 seconds. A session needs HTTPS to one satellite. UDP and a suitable NAT allow direct paths.',
    arguments: {
      satellite: { help: 'Only this satellite (default: all)', optional: true },
    },
    options: {
      throughput: {
        kind: 'flag',
        help: 'Also measure throughput in each direction: at most 8 MiB or 3 seconds per satellite',
      },
    },
    examples: [
      ['cde netcheck', 'find out why a session is slow'],
      ['cde netcheck --throughput --json', 'a report for your network team'],
    ],
    load: () => import('./netcheck.ts').then((m) => m.netcheck),
  }),
];
