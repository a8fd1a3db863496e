import { type Command, command } from '../command.ts';

const group = 'Connect:';
const workspace = { workspace: { help: 'NAME, or OWNER/NAME', completes: 'connectable' } } as const;

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
      'Where the template has a builder, BUILDKIT_HOST, BUILDX_CONFIG and BUILDX_BUILDER lead buildctl and docker buildx ' +
      'to it. It ends with the exit code of the command.',
    arguments: {
      ...workspace,
      command: { help: 'The command and its words', many: true },
    },
    endsOptions: true,
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
      ['cde env web tilt up', 'Tilt, in the namespace of web'],
      ['cde env web -L 5432 sh -c \'psql "postgres://$CDE_PORT_5432/"\'', 'with a port'],
    ],
    load: () => import('./env.ts').then((m) => m.env),
  }),
  command({
    name: 'build',
    group,
    summary: "Build an image in a workspace's builder, and push it from there",
    details:
      'Only the context goes up (what .dockerignore leaves of it), and nothing comes down: the image is built beside ' +
      'the workspace, with a cache that outlives stops, and with --push it goes from there to its registry. Needs ' +
      'docker buildx or buildctl on the PATH, and no Docker daemon. WORKSPACE is --workspace, CDE_WORKSPACE, or the ' +
      'only one of yours that runs on Kubernetes.',
    arguments: {
      context: {
        help: 'The folder that the Dockerfile copies from (default: this one), or the URL of a repository',
        optional: true,
        completes: 'files',
      },
    },
    options: {
      tag: {
        kind: 'list',
        short: 't',
        value: 'IMAGE',
        help: 'What it is called: REGISTRY/NAME:TAG; may be repeated',
      },
      push: { kind: 'flag', help: 'Push it; else it stays in the cache of the builder' },
      file: {
        kind: 'text',
        short: 'f',
        value: 'FILE',
        help: 'The Dockerfile (default: CONTEXT/Dockerfile)',
        completes: 'files',
      },
      buildArg: { kind: 'list', value: 'NAME=VALUE', help: 'An ARG of the Dockerfile; may be repeated' },
      target: { kind: 'text', value: 'STAGE', help: 'Build this stage of the Dockerfile' },
      platform: { kind: 'list', value: 'PLATFORM', help: 'For example linux/arm64; may be repeated' },
      secret: {
        kind: 'list',
        value: 'id=NAME,src=FILE',
        help: 'For RUN --mount=type=secret; may be repeated',
      },
      cache: { kind: 'no', help: 'Build every step anew' },
      workspace: { kind: 'text', value: 'NAME', help: 'Whose builder', completes: 'connectable' },
      start: { kind: 'no', help: 'Do not start a stopped workspace' },
    },
    examples: [
      ['cde build . -t registry.example.com/team/app:1 --push', 'in the only workspace that runs'],
      [
        'cde build --workspace web -f docker/Dockerfile --target test',
        'builds one stage, and keeps it there',
      ],
      ['cde env web docker buildx bake --push', 'what else buildx can, in the same builder'],
    ],
    load: () => import('./build.ts').then((m) => m.build),
  }),
];
