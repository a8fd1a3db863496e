import { type Command, command } from '../command.ts';

export const netcheckCommands: readonly Command[] = [
  command({
    name: 'netcheck',
    group: 'Connect:',
    summary: 'Measure the ways from here to the satellites: HTTPS, UDP, NAT, proxy',
    details:
      'Without --throughput it sends a few requests and twenty small datagrams to each satellite, and takes some four ' +
      'seconds. Sessions need HTTPS to one satellite; UDP and a friendly NAT let them go past it.',
    arguments: {
      satellite: { help: 'Only this one, as the table names it (default: all)', optional: true },
    },
    options: {
      throughput: {
        kind: 'flag',
        help: 'Also how much goes through, each way: at most 8 MiB or 3 seconds for each satellite',
      },
    },
    examples: [
      ['cde netcheck', 'why is it slow today?'],
      ['cde netcheck --throughput --json', 'for whoever looks after the network'],
    ],
    load: () => import('./netcheck.ts').then((m) => m.netcheck),
  }),
];
