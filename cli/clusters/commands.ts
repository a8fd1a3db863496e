import { type Command, command } from '../command.ts';

const group = 'Administration:';
const cluster = { cluster: { help: 'Its name, as `cde cluster list` shows it' } } as const;
const settings = {
  kubeconfig: {
    kind: 'text',
    value: 'FILE',
    help: 'A kubeconfig with a token or a certificate; its current context is used',
    completes: 'files',
  },
  inCluster: { kind: 'flag', help: 'The cluster that the server itself runs in, by its service account' },
  region: { kind: 'text', value: 'REGION', help: 'Where it is, in your words' },
  label: { kind: 'list', value: 'NAME=VALUE', help: 'For templates that choose by label; may be repeated' },
  default: { kind: 'flag', help: 'Templates that name no cluster use it' },
  publicEndpoint: {
    kind: 'text',
    value: 'URL',
    help: 'The API server as developers reach it, if not as the server does',
  },
} as const;

export const clusterCommands: readonly Command[] = [
  command({
    name: 'cluster add',
    group,
    summary: 'Add a Kubernetes cluster; the first one is the default',
    details: 'The credentials are tried, then sealed in the database and never shown.',
    arguments: { name: { help: 'What templates call it: lower-case letters, digits and dashes' } },
    options: settings,
    examples: [
      ['cde cluster add eu --kubeconfig eu.yaml --region europe-west1', 'from a kubeconfig'],
      ['cde cluster add home --in-cluster', 'where the server runs'],
    ],
    load: () => import('./clusters.ts').then((m) => m.add),
  }),
  command({
    name: 'cluster list',
    aliases: ['cluster ls'],
    group,
    summary: 'List clusters, with state and version',
    examples: [['cde cluster list', 'which are away, and since when']],
    load: () => import('./clusters.ts').then((m) => m.list),
  }),
  command({
    name: 'cluster show',
    group,
    summary: 'Show a cluster, and check what it offers and lacks',
    arguments: cluster,
    examples: [['cde cluster show eu', 'permissions, storage, nodes']],
    load: () => import('./clusters.ts').then((m) => m.show),
  }),
  command({
    name: 'cluster set',
    group,
    summary: 'Change a cluster, or replace its credentials',
    arguments: cluster,
    options: settings,
    examples: [
      ['cde cluster set eu --kubeconfig new.yaml', 'new credentials'],
      ['cde cluster set eu --default', 'make it the default'],
    ],
    load: () => import('./clusters.ts').then((m) => m.set),
  }),
  command({
    name: 'cluster orphans',
    group,
    summary: 'Namespaces without a workspace, workspaces without a namespace, homes that nobody knows',
    details:
      'Says what there is; with --clean deletes the namespaces, and keeps the homes that are in them. Clusters that are away are not judged.',
    options: {
      clean: { kind: 'flag', help: 'Do it, instead of saying it' },
      yes: { kind: 'flag', short: 'y', help: 'Do not ask' },
    },
    examples: [
      ['cde cluster orphans', 'what would be done'],
      ['cde cluster orphans --clean --yes', 'without asking'],
    ],
    load: () => import('./orphans.ts').then((m) => m.orphans),
  }),
  command({
    name: 'cluster adopt',
    group,
    summary: 'Give a home that no workspace has to a user, who can restore it into a new workspace',
    details:
      'For a server whose database was lost. NAME is a volume or a namespace, as cde cluster orphans shows it; a namespace is deleted, and its home kept.',
    arguments: { name: { help: 'The volume or namespace' } },
    options: {
      cluster: {
        kind: 'text',
        value: 'CLUSTER',
        help: 'The cluster it is on, if several have one of that name',
      },
      owner: { kind: 'text', value: 'USER', help: 'Who gets it (default: whose it was)' },
      yes: { kind: 'flag', short: 'y', help: 'Do not ask' },
    },
    examples: [['cde cluster adopt cde-ada-web --yes', 'the home of ada/web']],
    load: () => import('./adopt.ts').then((m) => m.adopt),
  }),
  command({
    name: 'cluster role',
    group,
    summary: 'Print the rights that the server needs on a cluster, for kubectl apply',
    details:
      'A service account, its roles, and the admission policies that hold it to namespaces and volumes of workspaces. Needs Kubernetes 1.30 and no server.',
    options: {
      namespace: { kind: 'text', value: 'NAMESPACE', help: 'Of the service account (default cde-system)' },
      serviceAccount: { kind: 'text', value: 'NAME', help: 'The service account (default cde)' },
      podSecurity: {
        kind: 'text',
        value: 'LEVEL',
        help: 'The highest podSecurity of templates: restricted, baseline (default) or privileged',
      },
      copySecret: {
        kind: 'list',
        value: 'NAMESPACE/NAME',
        help: 'A secret that templates may have copied into workspaces; may be repeated',
      },
    },
    examples: [['cde cluster role | kubectl apply -f -', 'on the cluster that is to be added']],
    load: () => import('./role.ts').then((m) => m.role),
  }),
  command({
    name: 'cluster remove',
    aliases: ['cluster rm'],
    group,
    summary: 'Forget a cluster on which no workspace lies; nothing on it is deleted',
    arguments: cluster,
    options: { yes: { kind: 'flag', short: 'y', help: 'Do not ask' } },
    examples: [['cde cluster remove old --yes', 'without asking']],
    load: () => import('./clusters.ts').then((m) => m.remove),
  }),
];
