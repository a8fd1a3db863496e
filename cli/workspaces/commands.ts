import { type Command, command } from '../command.ts';
import { workspaceStatuses } from '../statuses.ts';

const group = 'Workspaces:';
const workspace = { workspace: { help: 'NAME, or OWNER/NAME', completes: 'workspaces' } } as const;
const several = {
  workspaces: { help: 'NAME or OWNER/NAME, one or more', many: true, completes: 'workspaces' },
} as const;
const wait = { wait: { kind: 'no', help: 'Do not wait for the build to end' } } as const;
const openIn = ['dashboard', 'vscode', 'jetbrains'] as const;
const parameters = {
  param: { kind: 'list', short: 'p', value: 'NAME=VALUE', help: "A template's parameter; may be repeated" },
  paramFile: { kind: 'text', value: 'FILE', help: 'Parameters from a YAML or JSON file', completes: 'files' },
} as const;

export const workspaceCommands: readonly Command[] = [
  command({
    name: 'create',
    group,
    summary: 'Create a workspace and start it',
    details:
      'If there is one template, --template may be left out; at a terminal you choose among several. Parameters that are ' +
      'not given have their defaults; one without a default is asked for at a terminal.',
    arguments: { name: { help: 'Lower-case letters, digits and hyphens, at most 32' } },
    options: {
      template: {
        kind: 'text',
        short: 't',
        value: 'TEMPLATE',
        help: 'What to make it from',
        completes: 'templates',
      },
      ...parameters,
      owner: { kind: 'text', value: 'USER', help: 'For another user, if you may', completes: 'users' },
      home: {
        kind: 'text',
        value: 'HOME',
        help: 'With the kept home of a deleted workspace, by its name or id: cde home list',
      },
      start: { kind: 'no', help: 'Create it stopped' },
      ...wait,
    },
    examples: [
      ['cde create web --template local', 'from the template local, with its defaults'],
      ['cde create web -t local -p cpus=4 -p editor=vim', 'with parameters of your own'],
      ['cde create web -t local --home web', 'with the home that a deleted workspace left'],
      ['cde create web -t local --no-wait --json', 'for programs: prints the workspace at once'],
    ],
    load: () => import('./create.ts').then((m) => m.create),
  }),
  command({
    name: 'list',
    aliases: ['ls'],
    group,
    summary: 'List workspaces',
    options: {
      all: { kind: 'flag', short: 'a', help: "Everybody's that you may see, not only yours" },
      owner: { kind: 'text', value: 'USER', help: 'Only this user’s', completes: 'users' },
      status: {
        kind: 'text',
        value: 'STATUS',
        help: `Only these: ${workspaceStatuses.join(', ')}`,
        choices: workspaceStatuses,
        completes: workspaceStatuses,
      },
      template: { kind: 'text', value: 'TEMPLATE', help: 'Only those made from it', completes: 'templates' },
      search: { kind: 'text', value: 'TEXT', help: 'Only those whose name holds it' },
      limit: { kind: 'number', value: 'N', help: 'At most so many (default 1000)' },
    },
    examples: [
      ['cde list', 'yours'],
      ['cde list --all --status failed', "everybody's that failed"],
      ["cde list --json | jq -r '.[].name'", 'for programs'],
    ],
    load: () => import('./list.ts').then((m) => m.list),
  }),
  command({
    name: 'show',
    group,
    summary: 'Show a workspace: status, template, parameters, agent, last build',
    arguments: workspace,
    examples: [
      ['cde show web', 'all that is known of it'],
      ['cde show ada/web --json', "another user's, for programs"],
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
      ['cde start web', 'and wait until it runs'],
      ['cde start web api db', 'several at once'],
    ],
    load: () => import('./change.ts').then((m) => m.start),
  }),
  command({
    name: 'stop',
    group,
    summary: 'Stop workspaces; their homes stay',
    arguments: several,
    options: wait,
    examples: [
      ['cde stop web', 'its processes end, its home stays'],
      ['cde stop web api --no-wait', 'return at once'],
    ],
    load: () => import('./change.ts').then((m) => m.stop),
  }),
  command({
    name: 'restart',
    group,
    summary: 'Stop workspaces and start them on the same template version',
    arguments: several,
    options: wait,
    examples: [['cde restart web', 'stop, start, wait until it runs']],
    load: () => import('./change.ts').then((m) => m.restart),
  }),
  command({
    name: 'update',
    group,
    summary: 'Restart workspaces on the active version of their template',
    details:
      'A workspace that is up to date is left alone, unless a parameter changes. At a terminal, a parameter that the new ' +
      'version needs is asked for.',
    arguments: several,
    options: {
      ...parameters,
      force: { kind: 'flag', help: 'Build it again even if it is up to date' },
      ...wait,
    },
    examples: [
      ['cde update web', 'to the active template version; nothing happens if web is on it'],
      ['cde update web --param cpus=4', 'and with another value of a parameter'],
    ],
    load: () => import('./change.ts').then((m) => m.update),
  }),
  command({
    name: 'open',
    group,
    summary: 'Open a workspace in the dashboard or an editor, or one of its ports',
    details:
      'With --print, or where there is no screen, the address is printed instead. VS Code needs its Remote-SSH extension, ' +
      'JetBrains its Gateway; both reach the workspace by `cde config-ssh`. A port must be shared (`cde share`).',
    arguments: {
      workspace: {
        help: 'NAME, or OWNER/NAME (without it: the dashboard)',
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
      port: { kind: 'text', short: 'p', value: 'PORT', help: 'Open this shared port' },
      folder: { kind: 'text', value: 'PATH', help: 'The folder that the editor opens (default: the home)' },
      print: { kind: 'flag', help: 'Print the address only' },
    },
    examples: [
      ['cde open web', "web's page in the dashboard"],
      ['cde open web --in vscode --folder project', 'VS Code, in the folder project of the home'],
      ['cde open web --in jetbrains', 'JetBrains Gateway'],
      ['cde open web --port 3000', 'what listens on port 3000, in the browser'],
      ['cde open web --print', 'the address only'],
    ],
    load: () => import('./open.ts').then((m) => m.open),
  }),
  command({
    name: 'rename',
    group,
    summary: 'Give a workspace another name',
    details:
      'Its home, its Kubernetes namespace, its open sessions and who its ports are shared with stay. What holds the name ' +
      'changes: host names in ssh, addresses of shared ports and of the dashboard at once, the host name inside with the ' +
      'next start.',
    arguments: {
      ...workspace,
      name: { help: 'The new name: lower-case letters, digits and hyphens, at most 32' },
    },
    examples: [
      ['cde rename web shop', 'web.cde is shop.cde from now on'],
      ['cde rename ada/web shop', "another user's, if you may"],
    ],
    load: () => import('./rename.ts').then((m) => m.rename),
  }),
  command({
    name: 'delete',
    aliases: ['rm'],
    group,
    summary: 'Delete workspaces',
    details:
      'The home is kept for a grace period, unless --discard-home. Asks first; where nobody can answer, --yes is needed.',
    arguments: several,
    options: {
      yes: { kind: 'flag', short: 'y', help: 'Do not ask' },
      discardHome: { kind: 'flag', help: 'Remove the home at once, for good' },
      ...wait,
    },
    examples: [
      ['cde delete web', 'asks, then deletes it; its home is kept for the grace period'],
      ['cde delete web api --yes --discard-home', 'both, with their homes, without asking'],
    ],
    load: () => import('./change.ts').then((m) => m.remove),
  }),
  command({
    name: 'logs',
    group,
    summary: "Print a build's log",
    arguments: workspace,
    options: {
      build: { kind: 'number', short: 'b', value: 'NUMBER', help: 'Of this build, not of the latest' },
      follow: { kind: 'flag', short: 'f', help: 'Go on until the build ends' },
    },
    examples: [
      ['cde logs web', 'of the latest build'],
      ['cde logs web --follow', 'as it happens'],
      ['cde logs web --build 3 --json', 'of build 3, for programs'],
    ],
    load: () => import('./logs.ts').then((m) => m.logs),
  }),
  command({
    name: 'builds',
    group,
    summary: "List a workspace's builds, newest first",
    arguments: workspace,
    options: { limit: { kind: 'number', value: 'N', help: 'At most so many (default 20)' } },
    examples: [['cde builds web', 'what happened to it, by whom, and how long it took']],
    load: () => import('./builds.ts').then((m) => m.builds),
  }),
  command({
    name: 'cancel',
    group,
    summary: 'Cancel the build that is under way',
    arguments: workspace,
    options: { build: { kind: 'number', short: 'b', value: 'NUMBER', help: 'This build, not the latest' } },
    examples: [['cde cancel web', 'a start that hangs, for example']],
    load: () => import('./builds.ts').then((m) => m.cancel),
  }),
];
