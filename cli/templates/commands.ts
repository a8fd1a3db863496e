import { type Command, command } from '../command/command.ts';

const group = 'Templates:';
const template = { template: { help: "A template's name", completes: 'templates' } } as const;
const folder = { folder: { help: 'The folder that holds template.yaml', completes: 'files' } } as const;

export const templateCommands: readonly Command[] = [
  command({
    name: 'template push',
    group,
    summary: 'Publish a folder as a new version of its template',
    arguments: folder,
    options: {
      message: { kind: 'text', short: 'm', value: 'TEXT', help: 'What changed' },
      activate: { kind: 'no', help: 'Do not make it the active version' },
    },
    examples: [
      ['cde template push ./mine --message "more memory"', 'publish a version and make it active'],
      ['cde template push ./mine --no-activate', 'publish without activating'],
    ],
    load: () => import('./push.ts').then((m) => m.push),
  }),
  command({
    name: 'template list',
    aliases: ['template ls'],
    group,
    summary: 'List templates',
    examples: [['cde template list', 'name, provider, active version, workspaces']],
    load: () => import('./templates.ts').then((m) => m.list),
  }),
  command({
    name: 'template show',
    group,
    summary: 'Show a template and its parameters',
    arguments: template,
    examples: [['cde template show local', 'the parameters for `cde create --param`']],
    load: () => import('./templates.ts').then((m) => m.show),
  }),
  command({
    name: 'template validate',
    group,
    summary: 'Check a folder without publishing it',
    details:
      'Prints every fault as FILE:LINE:COLUMN and exits with 1 if there is one. Works without a server. --cluster also ' +
      'tries its objects on a cluster, as a dry run that creates nothing.',
    arguments: folder,
    options: {
      cluster: {
        kind: 'text',
        value: 'NAME',
        help: 'Also try its objects on this cluster',
      },
      param: {
        kind: 'list',
        short: 'p',
        value: 'NAME=VALUE',
        help: 'A parameter for the dry run (repeatable)',
      },
      paramFile: {
        kind: 'text',
        value: 'FILE',
        help: 'Parameters from a YAML or JSON file',
        completes: 'files',
      },
    },
    examples: [
      ['cde template validate ./mine', 'before you push it, or in CI'],
      [
        'cde template validate ./mine --cluster eu -p size=large',
        'also check whether the cluster accepts it',
      ],
    ],
    load: () => import('./push.ts').then((m) => m.validate),
  }),
  command({
    name: 'template versions',
    group,
    summary: "List a template's versions, newest first",
    arguments: template,
    examples: [['cde template versions local', 'the active version is marked with *']],
    load: () => import('./templates.ts').then((m) => m.versions),
  }),
  command({
    name: 'template activate',
    group,
    summary: 'Activate a version of a template',
    arguments: { ...template, version: { help: 'Its number' } },
    examples: [['cde template activate local 3', 'roll back to version 3']],
    load: () => import('./templates.ts').then((m) => m.activate),
  }),
  command({
    name: 'template delete',
    aliases: ['template rm'],
    group,
    summary: 'Delete a template that no workspace uses',
    arguments: template,
    options: { yes: { kind: 'flag', short: 'y', help: 'Skip the confirmation' } },
    examples: [['cde template delete old --yes', 'with all its versions']],
    load: () => import('./templates.ts').then((m) => m.remove),
  }),
];
