import { type Command, rawCommand } from '../command/command.ts';

export const serverCommands: readonly Command[] = [
  rawCommand({
    name: 'server start',
    group: 'Administration:',
    summary: 'Run the server in the foreground',
    details:
      'Accepts the flags of the server (--listen, --data-dir, --database-url, …), see docs/configuration.md. The first ' +
      'start signs this `cde` in, publishes the starter template and creates the workspace hello. Ctrl-C stops the server.',
    examples: [
      ['cde server start', 'on 127.0.0.1:7080, with an embedded database'],
      ['cde server start --listen 127.0.0.1:8080 --data-dir ./data', 'another address and data directory'],
    ],
    load: () => import('./start.ts').then((m) => m.start),
  }),
  rawCommand({
    name: 'server check-config',
    group: 'Administration:',
    summary: 'Check the settings of a server without starting it',
    details:
      'Accepts the flags and environment of the server, see docs/configuration.md. Prints the first unknown or invalid ' +
      'setting and exits with 2.',
    examples: [['cde server check-config', 'the settings of the environment']],
    load: () => import('./check-config.ts').then((m) => m.checkConfig),
  }),
  rawCommand({
    name: 'server sign-in-link',
    group: 'Administration:',
    summary: 'Create a one-time sign-in link on the machine of the server',
    details:
      "For users who cannot sign in any other way. Run it on the server's machine with the server's settings " +
      '(CDE_DATA_DIR or DATABASE_URL, CDE_ACCESS_URL or CDE_LISTEN). It needs the database and no sign-in. Without a name ' +
      'the link is for the first owner. It works once and expires after 10 minutes.',
    examples: [
      ['cde server sign-in-link', 'the first owner'],
      ['cde server sign-in-link ada', 'another user'],
    ],
    load: () => import('./sign-in-link.ts').then((m) => m.signInLink),
  }),
];
