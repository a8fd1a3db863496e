import { type Command, rawCommand } from '../command.ts';

export const serverCommands: readonly Command[] = [
  rawCommand({
    name: 'server start',
    group: 'Administration:',
    summary: 'Run the server here, in the foreground',
    details:
      "Takes the server's own flags (--listen, --data-dir, --database-url, …; docs/configuration.md). On its first start it " +
      'signs this `cde` in, publishes the starter template and creates the workspace hello. Ctrl-C stops it cleanly.',
    examples: [
      ['cde server start', 'on 127.0.0.1:7080, with a database of its own'],
      ['cde server start --listen 127.0.0.1:8080 --data-dir ./data', 'elsewhere'],
    ],
    load: () => import('./start.ts').then((m) => m.start),
  }),
  rawCommand({
    name: 'server check-config',
    group: 'Administration:',
    summary: 'Check whether a server would start with these settings, without starting one',
    details:
      "Takes the server's own flags and environment (docs/configuration.md). Names the first setting that does not exist or " +
      'cannot be used, and ends with 2.',
    examples: [['cde server check-config', 'the settings of the environment']],
    load: () => import('./check-config.ts').then((m) => m.checkConfig),
  }),
  rawCommand({
    name: 'server sign-in-link',
    group: 'Administration:',
    summary: 'Make a one-time link on the server’s own machine, for who has lost every other way in',
    details:
      'Run it where the server runs, with the same settings (CDE_DATA_DIR, DATABASE_URL): it needs the database, not a ' +
      'sign-in. Without a name the link is for the first owner. It works once, for 10 minutes.',
    examples: [
      ['cde server sign-in-link', 'the first owner'],
      ['cde server sign-in-link ada', 'somebody else'],
    ],
    load: () => import('./sign-in-link.ts').then((m) => m.signInLink),
  }),
];
