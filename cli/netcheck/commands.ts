import { type Command, command } from '../command/command.ts';

export const netcheckCommands: readonly Command[] = [
  command({
    name: 'netcheck',
    group: 'Connect:',
    summary: 'Measure the network between this machine and the satellites',
    details:
      'Checks HTTPS, UDP, NAT, proxies, DNS, IPv6, the MTU of the path and the clock, and looks for captive portals and for ' +
      'whatever decrypts HTTPS on the way. Sends a few requests and 20 small datagrams to each satellite. Takes about 2 ' +
      'seconds, at most 5; what has not ended by then is missing. A session needs HTTPS to one satellite. UDP and a suitable ' +
      'NAT allow direct paths.',
    arguments: {
      satellite: { help: 'Only this satellite (default: all)', optional: true },
    },
    options: {
      throughput: {
        kind: 'flag',
        help: 'Also measure throughput in each direction: at most 8 MiB or 3 seconds per satellite',
      },
      watch: {
        kind: 'flag',
        short: 'w',
        help: 'Measure again every few seconds until Ctrl-C: a line each time, and what has changed',
      },
    },
    examples: [
      ['cde netcheck', 'find out why a session is slow'],
      ['cde netcheck --watch', 'wait for a fault that comes and goes'],
      ['cde netcheck --throughput --json', 'a report for your network team'],
    ],
    load: () => import('./netcheck.ts').then((m) => m.netcheck),
  }),
];
