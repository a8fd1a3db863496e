import { type Command, command } from '../command.ts';

const group = 'Connect:';
const workspace = { workspace: { help: 'NAME, or OWNER/NAME', completes: 'workspaces' } } as const;

export const kubernetesCommands: readonly Command[] = [
  command({
    name: 'kubeconfig',
    group,
    summary: "Give kubectl a context for a workspace's namespace",
    details:
      'Merges a context into your kubeconfig and makes it the current one; everything else in the file stays. Its ' +
      'credentials are fetched by `cde kube-token` when they are needed and live an hour.',
    arguments: workspace,
    options: {
      kubeconfig: {
        kind: 'text',
        value: 'FILE',
        help: 'The file to change (default: the first of KUBECONFIG, else ~/.kube/config)',
        completes: 'files',
      },
      context: { kind: 'text', value: 'NAME', help: 'The name of the context (default: cde-OWNER-NAME)' },
      switch: { kind: 'no', help: 'Leave the current context as it is' },
      print: { kind: 'flag', help: 'Print a kubeconfig of this context alone, and change no file' },
      remove: { kind: 'flag', help: 'Take the context out of the file again' },
    },
    examples: [
      ['cde kubeconfig web', 'then: kubectl get pods'],
      ['cde kubeconfig web --print > web.yaml', 'a file of its own'],
      ['cde kubeconfig web --remove', 'undo it'],
    ],
    load: () => import('./kubeconfig.ts').then((m) => m.kubeconfig),
  }),
  command({
    name: 'kube-token',
    group,
    summary: 'Print credentials for kubectl; kubectl itself calls this (an exec plugin)',
    arguments: workspace,
    examples: [['cde kube-token web', 'an ExecCredential, cached until shortly before it expires']],
    load: () => import('./kube-token.ts').then((m) => m.kubeToken),
  }),
  command({
    name: 'env',
    group,
    summary: "Run a local command with a workspace's kubeconfig and ports in its environment",
    details:
      'The command finds KUBECONFIG, CDE_WORKSPACE, CDE_NAMESPACE and, for each --forward, CDE_PORT_N=127.0.0.1:PORT. ' +
      'It ends with the exit code of the command.',
    arguments: {
      ...workspace,
      command: { help: 'The command and its words, after --', many: true },
    },
    options: {
      forward: {
        kind: 'list',
        short: 'L',
        value: 'PORT',
        help: 'Forward a port of the workspace to a free local one, as `cde port-forward`; may be repeated',
      },
      start: { kind: 'no', help: 'Do not start a stopped workspace' },
    },
    examples: [
      ['cde env web -- tilt up', 'Tilt, in the namespace of web'],
      ['cde env web -L 5432 -- sh -c \'psql "postgres://$CDE_PORT_5432/"\'', 'with a port'],
    ],
    load: () => import('./env.ts').then((m) => m.env),
  }),
];
