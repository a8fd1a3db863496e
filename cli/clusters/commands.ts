import { type Command, command } from '../command/command.ts';

const group = 'Administration:';
const cluster = {
  cluster: { help: 'Its name, as `cde cluster list` shows it', completes: 'clusters' },
} as const;
const settings = {
  kubeconfig: {
    kind: 'text',
    value: 'FILE',
    help: 'A kubeconfig with a token or a certificate; its current context is used',
    completes: 'files',
  },
  inCluster: { kind: 'flag', help: 'Use the cluster that the server runs in, through its service account' },
  region: { kind: 'text', value: 'REGION', help: 'Region, for example europe-west1' },
  label: { kind: 'list', value: 'NAME=VALUE', help: 'A label for templates to select by (repeatable)' },
  default: { kind: 'flag', help: 'Use it for templates that name no cluster' },
  publicEndpoint: {
    kind: 'text',
    value: 'URL',
    help: 'Address of the API server for developers, if it differs from the one that the server uses',
  },
} as const;

export const clusterCommands: readonly Command[] = [
  command({
    name: 'cluster add',
    group,
    summary: 'Add a Kubernetes cluster',
    details:
      'The first cluster becomes the default. The credentials are checked, stored encrypted and never shown.',
    arguments: { name: { help: 'Its name in templates: lower-case letters, digits and hyphens' } },
    options: settings,
    examples: [
      ['cde cluster add eu --kubeconfig eu.yaml --region europe-west1', 'from a kubeconfig'],
      ['cde cluster add home --in-cluster', 'the cluster that the server runs in'],
    ],
    load: () => import('./clusters.ts').then((m) => m.add),
  }),
  command({
    name: 'cluster list',
    aliases: ['cluster ls'],
    group,
    summary: 'List clusters',
    examples: [['cde cluster list', 'state, version and workspaces of each']],
    load: () => import('./clusters.ts').then((m) => m.list),
  }),
  command({
    name: 'cluster show',
    group,
    summary: 'Show a cluster and check its permissions, storage and nodes',
    arguments: cluster,
    examples: [['cde cluster show eu', 'settings and checks']],
    load: () => import('./clusters.ts').then((m) => m.show),
  }),
  command({
    name: 'cluster set',
    group,
    summary: 'Change the settings or credentials of a cluster',
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
    summary: 'List what is on clusters and engines without a workspace',
    details:
      'An orphan is a namespace, container, network, volume or home that no workspace uses, or a workspace whose namespace ' +
      'is gone. --clean deletes them, except for homes. Unreachable clusters and engines are skipped.',
    options: {
      clean: { kind: 'flag', help: 'Delete them, except for homes' },
      yes: { kind: 'flag', short: 'y', help: 'Skip the confirmation' },
    },
    examples: [
      ['cde cluster orphans', 'what --clean would do'],
      ['cde cluster orphans --clean --yes', 'without asking'],
    ],
    load: () => import('./orphans.ts').then((m) => m.orphans),
  }),
  command({
    name: 'cluster adopt',
    group,
    summary: 'Adopt an orphaned home, so that a user can restore it',
    details:
      'For a server whose database was lost. NAME is a home or namespace from `cde cluster orphans`. The user can restore ' +
      'the home into a new workspace. An adopted namespace is deleted, and so is a container that uses the home.',
    arguments: { name: { help: 'The home or namespace' } },
    options: {
      cluster: {
        kind: 'text',
        value: 'CLUSTER',
        help: 'Its cluster, if several have one with this name',
      },
      provider: {
        kind: 'text',
        value: 'PROVIDER',
        help: 'Its provider if it is on none: docker, incus, ec2, gce',
      },
      owner: { kind: 'text', value: 'USER', help: 'The user who gets it (default: its former owner)' },
      yes: { kind: 'flag', short: 'y', help: 'Skip the confirmation' },
    },
    examples: [['cde cluster adopt cde-ada-web --yes', 'the home of ada/web']],
    load: () => import('./adopt.ts').then((m) => m.adopt),
  }),
  command({
    name: 'cluster role',
    group,
    summary: 'Print the role that the server needs on a cluster',
    details:
      'Prints a service account, its roles, and the admission policies that restrict it to the namespaces and volumes of ' +
      'workspaces, for kubectl apply. Needs Kubernetes 1.30 or newer. Works without a server.',
    options: {
      namespace: {
        kind: 'text',
        value: 'NAMESPACE',
        help: 'Namespace of the service account (default cde-system)',
      },
      serviceAccount: { kind: 'text', value: 'NAME', help: 'Name of the service account (default cde)' },
      podSecurity: {
        kind: 'text',
        value: 'LEVEL',
        help: 'Highest podSecurity level of templates: restricted, baseline (default) or privileged',
      },
      copySecret: {
        kind: 'list',
        value: 'NAMESPACE/NAME',
        help: 'A secret that templates can copy into workspaces (repeatable)',
      },
    },
    examples: [['cde cluster role | kubectl apply -f -', 'on the cluster that you will add']],
    load: () => import('./role.ts').then((m) => m.role),
  }),
  command({
    name: 'cluster remove',
    aliases: ['cluster rm'],
    group,
    summary: 'Remove a cluster that no workspace uses',
    details: 'Nothing on the cluster is deleted.',
    arguments: cluster,
    options: { yes: { kind: 'flag', short: 'y', help: 'Skip the confirmation' } },
    examples: [['cde cluster remove old --yes', 'without asking']],
    load: () => import('./clusters.ts').then((m) => m.remove),
  }),
];
