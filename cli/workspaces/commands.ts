import { type Command, command } from '../command/command.ts';
import { workspaceStatuses } from '../command/statuses.ts';

const group = 'Workspaces:';
const workspace = { workspace: { help: 'NAME or OWNER/NAME', completes: 'workspaces' } } as const;
const several = {
  workspaces: { help: 'NAME or OWNER/NAME, one or more', many: true, completes: 'workspaces' },
} as const;
const wait = { wait: { kind: 'no', help: 'Do not wait for the build to end' } } as const;
const openIn = ['dashboard', 'vscode', 'jetbrains'] as const;
const parameters = {
  param: { kind: 'list', short: 'p', value: 'NAME=VALUE', help: 'A parameter of the template (repeatable)' },
  paramFile: { kind: 'text', value: 'FILE', help: 'Parameters from a YAML or JSON file', completes: 'files' },
} as const;

export const workspaceCommands: readonly Command[] = [
  command({
    name: 'create',
    group,
    summary: 'Create a workspace and start it',
    details:
      'You can omit --template if there is only one. At a terminal, cde prompts for the template and for parameters without ' +
      'a default. Other parameters that you do not set have their default values.',
    arguments: { name: { help: 'Lower-case letters, digits and hyphens, at most 32' } },
    options: {
      template: {
        kind: 'text',
        short: 't',
        value: 'TEMPLATE',
        help: 'The template to create it from',
        completes: 'templates',
      },
      ...parameters,
      owner: { kind: 'text', value: 'USER', help: 'Create it for another user', completes: 'users' },
      home: {
        kind: 'text',
        value: 'HOME',
        help: 'Restore the retained home of a deleted workspace, by name or id from `cde home list`',
      },
      start: { kind: 'no', help: 'Create it stopped' },
      ...wait,
    },
    examples: [
      ['cde create web --template local', 'from the template local, with default parameters'],
      ['cde create web -t local -p cpus=4 -p editor=vim', 'with other parameters'],
      ['cde create web -t local --home web', 'with the retained home of a deleted workspace'],
      ['cde create web -t local --no-wait --json', 'print the workspace and do not wait'],
    ],
    load: () => import('./create.ts').then((m) => m.create),
  }),
  command({
    name: 'list',
    aliases: ['ls'],
    group,
    summary: 'List workspaces',
    options: {
      all: { kind: 'flag', short: 'a', help: 'All workspaces that you have access to, not only your own' },
      owner: { kind: 'text', value: 'USER', help: 'Only workspaces of this user', completes: 'users' },
      status: {
        kind: 'text',
        value: 'STATUS',
        help: `Only workspaces with this status: ${workspaceStatuses.join(', ')}`,
        choices: workspaceStatuses,
        completes: workspaceStatuses,
      },
      template: {
        kind: 'text',
        value: 'TEMPLATE',
        help: 'Only workspaces created from this template',
        completes: 'templates',
      },
      search: { kind: 'text', value: 'TEXT', help: 'Only workspaces whose name contains this' },
      archived: { kind: 'flag', help: 'Only archived workspaces, which are missing otherwise' },
      limit: { kind: 'number', value: 'N', help: 'Maximum number of workspaces (default 1000)' },
    },
    examples: [
      ['cde list', 'your workspaces'],
      ['cde list --archived', 'your archived workspaces'],
      ['cde list --all --status failed', 'all failed workspaces that you have access to'],
      ["cde list --json | jq -r '.[].name'", 'only the names'],
    ],
    load: () => import('./list.ts').then((m) => m.list),
  }),
  command({
    name: 'show',
    group,
    summary: 'Show a workspace',
    arguments: workspace,
    examples: [
      ['cde show web', 'status, template, parameters, agent and last build'],
      ['cde show ada/web --json', 'a workspace of another user, as JSON'],
    ],
    load: () => import('./show.ts').then((m) => m.show),
  }),
  command({
    name: 'start',
    group,
    summary: 'Start workspaces',
    arguments: several,
    options: wait,
    examples: [
      ['cde start web', 'start it and wait until it runs'],
      ['cde start web api db', 'start several workspaces'],
    ],
    load: () => import('./change.ts').then((m) => m.start),
  }),
  command({
    name: 'stop',
    group,
    summary: 'Stop workspaces and keep their homes',
    arguments: several,
    options: wait,
    examples: [
      ['cde stop web', 'stop it and wait until it has stopped'],
      ['cde stop web api --no-wait', 'return at once'],
    ],
    load: () => import('./change.ts').then((m) => m.stop),
  }),
  command({
    name: 'restart',
    group,
    summary: 'Restart workspaces on the same template version',
    arguments: several,
    options: wait,
    examples: [['cde restart web', 'stop it, start it and wait until it runs']],
    load: () => import('./change.ts').then((m) => m.restart),
  }),
  command({
    name: 'update',
    group,
    summary: 'Update workspaces to the active version of their template',
    details:
      'Restarts each workspace, unless it is up to date and no parameter changes. At a terminal, cde prompts for parameters ' +
      'that the new version requires.',
    arguments: several,
    options: {
      ...parameters,
      force: { kind: 'flag', help: 'Rebuild it even if it is up to date' },
      ...wait,
    },
    examples: [
      ['cde update web', 'update it if it is out of date'],
      ['cde update web --param cpus=4', 'update it and change a parameter'],
    ],
    load: () => import('./change.ts').then((m) => m.update),
  }),
  command({
    name: 'open',
    group,
    summary: 'Open a workspace in the dashboard, an editor or a browser',
    details:
      'VS Code needs the Remote-SSH extension and JetBrains needs Gateway. Both need `cde config-ssh`. A port must be shared ' +
      'with `cde share`. Without a display, the address is printed.',
    arguments: {
      workspace: {
        help: 'NAME or OWNER/NAME (default: the list of workspaces)',
        optional: true,
        completes: 'workspaces',
      },
    },
    options: {
      in: {
        kind: 'text',
        value: 'WHERE',
        help: `One of ${openIn.join(', ')} (default dashboard)`,
        choices: openIn,
        completes: openIn,
      },
      port: { kind: 'text', short: 'p', value: 'PORT', help: 'Open this shared port in the browser' },
      folder: { kind: 'text', value: 'PATH', help: 'The folder to open in the editor (default: the home)' },
      print: { kind: 'flag', help: 'Print the address and open nothing' },
    },
    examples: [
      ['cde open web', 'its page in the dashboard'],
      ['cde open web --in vscode --folder project', 'VS Code in the folder project of the home'],
      ['cde open web --in jetbrains', 'JetBrains Gateway'],
      ['cde open web --port 3000', 'port 3000 in the browser'],
      ['cde open web --print', 'only the address'],
    ],
    load: () => import('./open.ts').then((m) => m.open),
  }),
  command({
    name: 'rename',
    group,
    summary: 'Rename a workspace',
    details:
      'The home, the Kubernetes namespace, open sessions and shared ports are kept. SSH host names and the addresses of ' +
      'shared ports and of the dashboard change at once. The host name inside the workspace changes with its next start.',
    arguments: {
      ...workspace,
      name: { help: 'The new name: lower-case letters, digits and hyphens, at most 32' },
    },
    examples: [
      ['cde rename web shop', 'web.cde becomes shop.cde'],
      ['cde rename ada/web shop', 'a workspace of another user'],
    ],
    load: () => import('./rename.ts').then((m) => m.rename),
  }),
  command({
    name: 'delete',
    aliases: ['rm'],
    group,
    summary: 'Delete workspaces',
    details:
      'Homes are retained for a grace period unless you pass --discard-home. Asks for confirmation. Without a terminal, ' +
      '--yes is required.',
    arguments: several,
    options: {
      yes: { kind: 'flag', short: 'y', help: 'Skip the confirmation' },
      discardHome: { kind: 'flag', help: 'Delete the home permanently' },
      ...wait,
    },
    examples: [
      ['cde delete web', 'delete it and retain its home for the grace period'],
      ['cde delete web api --yes --discard-home', 'delete both and their homes without asking'],
    ],
    load: () => import('./change.ts').then((m) => m.remove),
  }),
  command({
    name: 'logs',
    group,
    summary: 'Print the log of a build',
    arguments: workspace,
    options: {
      build: {
        kind: 'number',
        short: 'b',
        value: 'NUMBER',
        help: 'The number of the build (default: the latest)',
      },
      follow: { kind: 'flag', short: 'f', help: 'Print new lines until the build ends' },
    },
    examples: [
      ['cde logs web', 'the latest build'],
      ['cde logs web --follow', 'follow the latest build'],
      ['cde logs web --build 3 --json', 'build 3, as JSON'],
    ],
    load: () => import('./logs.ts').then((m) => m.logs),
  }),
  command({
    name: 'builds',
    group,
    summary: 'List the builds of a workspace, newest first',
    arguments: workspace,
    options: { limit: { kind: 'number', value: 'N', help: 'Maximum number of builds (default 20)' } },
    examples: [['cde builds web', 'result, reason, initiator and duration']],
    load: () => import('./builds.ts').then((m) => m.builds),
  }),
  command({
    name: 'cancel',
    group,
    summary: 'Cancel the build in progress',
    arguments: workspace,
    options: {
      build: {
        kind: 'number',
        short: 'b',
        value: 'NUMBER',
        help: 'The number of the build (default: the latest)',
      },
    },
    examples: [['cde cancel web', 'for example a start that hangs']],
    load: () => import('./builds.ts').then((m) => m.cancel),
  }),
];
