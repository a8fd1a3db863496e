import { type Command, command, rawCommand } from '../command.ts';

const group = 'Administration:';
const satellite = { satellite: { help: 'Its name, as `cde satellite list` shows it' } } as const;

export const satelliteCommands: readonly Command[] = [
  command({
    name: 'satellite add',
    group,
    summary: 'Add a satellite; its token is shown once',
    details:
      'The token alone goes to stdout. Give it to `cde satellite start` where the satellite is to run.',
    arguments: { name: { help: 'Lower-case letters, digits and dashes' } },
    options: { region: { kind: 'text', value: 'REGION', help: 'Where it is, in your words' } },
    examples: [['cde satellite add tokyo --region ap-northeast-1', 'prints its token']],
    load: () => import('./satellites.ts').then((m) => m.add),
  }),
  rawCommand({
    name: 'satellite start',
    group,
    summary: 'Run a satellite here, in the foreground',
    details:
      "Takes the satellite's own flags (--server, --token, --url, --listen, --tls-cert, …; docs/satellites.md). It registers, " +
      'relays sessions, and goes on doing so while the server is away. Ctrl-C sends its sessions elsewhere and ends it.',
    examples: [
      [
        'CDE_SATELLITE_TOKEN=cde_satellite_… cde satellite start --server https://cde.example.com --url https://tokyo.cde.example.com',
        'behind an ingress that ends TLS',
      ],
    ],
    load: () => import('./start.ts').then((m) => m.start),
  }),
  command({
    name: 'satellite list',
    aliases: ['satellite ls'],
    group,
    summary: 'List satellites, with version, load and health',
    details: 'Without the one that the server carries.',
    examples: [['cde satellite list', 'state, sessions, throughput']],
    load: () => import('./satellites.ts').then((m) => m.list),
  }),
  command({
    name: 'satellite show',
    group,
    summary: 'Show a satellite',
    arguments: satellite,
    examples: [['cde satellite show tokyo', 'all that it has said of itself']],
    load: () => import('./satellites.ts').then((m) => m.show),
  }),
  command({
    name: 'satellite drain',
    group,
    summary: 'Empty a satellite: it takes nobody new, and its sessions go on over another',
    arguments: satellite,
    options: { undo: { kind: 'flag', help: 'Let it serve again' } },
    examples: [
      ['cde satellite drain tokyo', 'before its machine is stopped'],
      ['cde satellite drain tokyo --undo', 'afterwards'],
    ],
    load: () => import('./satellites.ts').then((m) => m.drain),
  }),
  command({
    name: 'satellite web',
    group,
    summary: 'Let a satellite serve terminals and ports to browsers of its region, or no longer',
    details:
      'It reads what passes there, which it never does of the sessions that it relays: turn it on for machines that you trust with that. ' +
      'Ports need a wildcard name that leads to the satellite and a certificate for it; without one it serves terminals only.',
    arguments: satellite,
    options: {
      off: { kind: 'flag', help: 'Browsers are served nothing any more' },
      portHost: { kind: 'text', value: 'NAME', help: 'Wildcard name of its ports: *.tokyo.dev.example.com' },
    },
    examples: [
      [
        "cde satellite web tokyo --port-host '*.tokyo.dev.example.com'",
        'terminals, and ports under that name',
      ],
      ['cde satellite web tokyo --off', 'ciphertext only, as it was'],
    ],
    load: () => import('./satellites.ts').then((m) => m.web),
  }),
  command({
    name: 'satellite remove',
    aliases: ['satellite rm'],
    group,
    summary: 'Forget a satellite; its token is refused, and it empties itself and ends',
    arguments: satellite,
    options: { yes: { kind: 'flag', short: 'y', help: 'Do not ask' } },
    examples: [['cde satellite remove tokyo --yes', 'without asking']],
    load: () => import('./satellites.ts').then((m) => m.remove),
  }),
];
