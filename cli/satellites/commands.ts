import { type Command, command, rawCommand } from '../command/command.ts';

const group = 'Administration:';
const satellite = { satellite: { help: 'Its name, from `cde satellite list`' } } as const;

export const satelliteCommands: readonly Command[] = [
  command({
    name: 'satellite add',
    group,
    summary: 'Add a satellite and print its token',
    details:
      'The token is shown only once. Pass it to `cde satellite start` on the machine that runs the satellite.',
    arguments: { name: { help: 'Lower-case letters, digits and hyphens' } },
    options: { region: { kind: 'text', value: 'REGION', help: 'Region, for example ap-northeast-1' } },
    examples: [['cde satellite add tokyo --region ap-northeast-1', 'prints its token']],
    load: () => import('./satellites.ts').then((m) => m.add),
  }),
  rawCommand({
    name: 'satellite start',
    group,
    summary: 'Run a satellite in the foreground',
    details:
      'Accepts the flags of the satellite (--server, --token, --url, --listen, --tls-cert, …), see docs/satellites.md. It ' +
      'keeps relaying sessions while the server is unreachable. Ctrl-C moves its sessions to other satellites and stops it.',
    examples: [
      [
        'CDE_SATELLITE_TOKEN=cde_satellite_… cde satellite start --server https://cde.example.com --url https://tokyo.cde.example.com',
        'behind an ingress that terminates TLS',
      ],
    ],
    load: () => import('./start.ts').then((m) => m.start),
  }),
  command({
    name: 'satellite list',
    aliases: ['satellite ls'],
    group,
    summary: 'List satellites',
    details: 'The satellite that is embedded in the server is not listed.',
    examples: [['cde satellite list', 'state, version, sessions and throughput']],
    load: () => import('./satellites.ts').then((m) => m.list),
  }),
  command({
    name: 'satellite show',
    group,
    summary: 'Show a satellite',
    arguments: satellite,
    examples: [['cde satellite show tokyo', 'version, load and health']],
    load: () => import('./satellites.ts').then((m) => m.show),
  }),
  command({
    name: 'satellite drain',
    group,
    summary: 'Drain a satellite: move its sessions elsewhere and accept no new ones',
    arguments: satellite,
    options: { undo: { kind: 'flag', help: 'Stop draining' } },
    examples: [
      ['cde satellite drain tokyo', 'before you stop its machine'],
      ['cde satellite drain tokyo --undo', 'afterwards'],
    ],
    load: () => import('./satellites.ts').then((m) => m.drain),
  }),
  command({
    name: 'satellite web',
    group,
    summary: 'Allow a satellite to serve browsers, or forbid it',
    details:
      'A satellite sees the plain text of the terminals and ports that it serves to browsers, unlike that of the sessions ' +
      'it relays: allow it only on machines that you trust. Ports need a wildcard name that resolves to the satellite, and ' +
      'a certificate for it. Without a wildcard name the satellite serves terminals only.',
    arguments: satellite,
    options: {
      off: { kind: 'flag', help: 'Stop serving browsers' },
      portHost: { kind: 'text', value: 'NAME', help: 'Wildcard name for its ports: *.tokyo.dev.example.com' },
    },
    examples: [
      ["cde satellite web tokyo --port-host '*.tokyo.dev.example.com'", 'terminals and ports'],
      ['cde satellite web tokyo --off', 'relay only, as by default'],
    ],
    load: () => import('./satellites.ts').then((m) => m.web),
  }),
  command({
    name: 'satellite remove',
    aliases: ['satellite rm'],
    group,
    summary: 'Remove a satellite and revoke its token',
    details: 'A running satellite drains itself and stops.',
    arguments: satellite,
    options: { yes: { kind: 'flag', short: 'y', help: 'Skip the confirmation' } },
    examples: [['cde satellite remove tokyo --yes', 'without asking']],
    load: () => import('./satellites.ts').then((m) => m.remove),
  }),
];
