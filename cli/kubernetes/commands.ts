import { type Command, command } from '../command/command.ts';

const group = 'Connect:';
const workspace = { workspace: { help: 'NAME or OWNER/NAME', completes: 'connectable' } } as const;

export const kubernetesCommands: readonly Command[] = [
  command({
    name: 'kubeconfig',
    group,
    summary: 'Add a kubectl context for the namespace of a workspace',
    details:
      'Merges a context into your kubeconfig and makes it the current one. The rest of the file is unchanged. Its ' +
      'credentials are fetched by `cde kube-token` when needed and expire after an hour.',
    arguments: workspace,
    options: {
      kubeconfig: {
        kind: 'text',
        value: 'FILE',
        help: 'The file to change (default: the first of KUBECONFIG, else ~/.kube/config)',
        completes: 'files',
      },
      context: { kind: 'text', value: 'NAME', help: 'The name of the context (default: cde-OWNER-NAME)' },
      switch: { kind: 'no', help: 'Do not switch to the new context' },
      print: { kind: 'flag', help: 'Print a kubeconfig with only this context, and change no file' },
      remove: { kind: 'flag', help: 'Remove the context from the file' },
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
    summary: 'Print credentials for kubectl (an exec plugin that kubectl calls)',
    arguments: workspace,
    examples: [['cde kube-token web', 'an ExecCredential, cached until shortly before it expires']],
    load: () => import('./kube-token.ts').then((m) => m.kubeToken),
  }),
  command({
    name: 'env',
    group,
    summary: 'Run a local command with the kubeconfig and ports of a workspace',
    details:
      'Sets KUBECONFIG, CDE_WORKSPACE, CDE_NAMESPACE and, for each --forward, CDE_PORT_N=127.0.0.1:PORT. If the template ' +
      'has a builder, BUILDKIT_HOST, BUILDX_CONFIG and BUILDX_BUILDER point buildctl and docker buildx at it. Exits with ' +
      'the exit code of the command.',
    arguments: {
      ...workspace,
      command: { help: 'The command and its arguments', many: true },
    },
    endsOptions: true,
    options: {
      forward: {
        kind: 'list',
        short: 'L',
        value: 'PORT',
        help: 'Forward a port of the workspace to a free local port (repeatable)',
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
    summary: 'Build an image in the builder of a workspace',
    details:
      'Uploads only the context (without what .dockerignore excludes). The image is built beside the workspace, with a ' +
      'cache that survives stops, and --push sends it from there to its registry. Needs docker buildx or buildctl on the ' +
      'PATH, but no Docker daemon. The workspace is --workspace, CDE_WORKSPACE, or your only one that runs on Kubernetes.',
    arguments: {
      context: {
        help: 'The build context: a folder (default: the current one) or the URL of a repository',
        optional: true,
        completes: 'files',
      },
    },
    options: {
      tag: {
        kind: 'list',
        short: 't',
        value: 'IMAGE',
        help: 'Name of the image, REGISTRY/NAME:TAG (repeatable)',
      },
      push: { kind: 'flag', help: 'Push the image (default: keep it in the cache of the builder)' },
      file: {
        kind: 'text',
        short: 'f',
        value: 'FILE',
        help: 'The Dockerfile (default: CONTEXT/Dockerfile)',
        completes: 'files',
      },
      buildArg: { kind: 'list', value: 'NAME=VALUE', help: 'An ARG of the Dockerfile (repeatable)' },
      target: { kind: 'text', value: 'STAGE', help: 'Build this stage of the Dockerfile' },
      platform: { kind: 'list', value: 'PLATFORM', help: 'For example linux/arm64 (repeatable)' },
      secret: {
        kind: 'list',
        value: 'id=NAME,src=FILE',
        help: 'For RUN --mount=type=secret (repeatable)',
      },
      cache: { kind: 'no', help: 'Do not use the build cache' },
      workspace: {
        kind: 'text',
        value: 'NAME',
        help: 'The workspace whose builder to use',
        completes: 'connectable',
      },
      start: { kind: 'no', help: 'Do not start a stopped workspace' },
    },
    examples: [
      ['cde build . -t registry.example.com/team/app:1 --push', 'in your only running workspace'],
      ['cde build --workspace web -f docker/Dockerfile --target test', 'one stage, kept in the builder'],
      ['cde env web docker buildx bake --push', 'any other buildx command, in the same builder'],
    ],
    load: () => import('./build.ts').then((m) => m.build),
  }),
];
