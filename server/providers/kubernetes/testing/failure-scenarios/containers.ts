import { type FailureScenario, object, shell, small } from './scenario.ts';

/** Containers that do not start, end or are not ready. */
export const containerScenarios = (unique: string): FailureScenario[] => [
  {
    name: 'init-says-why',
    code: 'image-without-shell',
    message: /^The image has no shell\.$/,
    fatal: true,
    pod: {
      initContainers: [
        {
          name: 'prepare',
          image: 'cde-test/debian:12',
          ...shell('printf "image-without-shell: The image has no shell." > /dev/termination-log; exit 1'),
        },
      ],
    },
  },
  {
    name: 'init-failed',
    code: 'init-failed',
    message: /^The init container prepare exited with code 3\.$/,
    fatal: false,
    log: 'prepare',
    pod: {
      initContainers: [
        { name: 'prepare', image: 'cde-test/debian:12', ...shell('echo the disk is on fire >&2; exit 3') },
      ],
    },
  },
  {
    name: 'crash',
    code: 'crashed',
    message: /^The container agent exited with code 127 \(command not found\)/,
    fatal: false,
    log: 'agent',
    container: shell('echo starting; cde-nowhere --serve'),
    end: /^The agent exited with code 127 \(command not found\)$/,
  },
  {
    name: 'crash-by-signal',
    code: 'crashed',
    message: /^The container agent was killed by SIGSEGV/,
    fatal: false,
    log: 'agent',
    container: shell('sh -c "kill -SEGV \\$\\$"; exit $?'),
    end: /^The agent was killed by SIGSEGV$/,
  },
  {
    name: 'command-missing',
    code: 'command-not-found',
    message: /^The image cde-test\/debian:12 cannot run: the command cde-nowhere is not in it\.$/,
    fatal: true,
    container: { command: ['cde-nowhere'] },
  },
  {
    name: 'command-not-executable',
    code: 'command-not-executable',
    message:
      /^The image cde-test\/debian:12 cannot run: the command \/etc\/hostname may not be executed by its user\.$/,
    fatal: true,
    container: { command: ['/etc/hostname'] },
  },
  {
    name: 'wrong-architecture',
    code: 'wrong-architecture',
    message:
      /^The image cde-test\/debian:12 cannot run: it is made for another architecture than the node has/,
    fatal: true,
    log: 'agent',
    before: [
      object('v1', 'ConfigMap', 'tool', {
        binaryData: { tool: Buffer.from('\x7fELF no').toString('base64') },
      }),
    ],
    pod: { volumes: [{ name: 'tool', configMap: { name: 'tool', defaultMode: 0o755 } }] },
    container: { command: ['/tool/tool'], volumeMounts: [{ name: 'tool', mountPath: '/tool' }] },
  },
  {
    name: 'out-of-memory',
    code: 'out-of-memory',
    message: /^The container agent was killed: out of memory \(limit 32Mi\)\.$/,
    fatal: false,
    container: { command: ['tail', '/dev/zero'], resources: small },
    end: /^The workspace ran out of memory \(limit 32Mi\)$/,
  },
  {
    name: 'runs-as-root',
    code: 'image-runs-as-root',
    message: /^The image cde-test\/debian:12 would run as root, which is not permitted here\.$/,
    fatal: true,
    container: { securityContext: { runAsNonRoot: true } },
  },
  {
    name: 'secret-missing',
    code: 'env-source-missing',
    message: /^The secret database that the container agent needs does not exist\.$/,
    fatal: false,
    container: { envFrom: [{ secretRef: { name: 'database' } }] },
  },
  {
    name: 'runtime-class',
    code: 'runtime-class-missing',
    message: /does not have the workspace's runtime class\.$/,
    fatal: false,
    before: [object('node.k8s.io/v1', 'RuntimeClass', `${unique}-runtime`, { handler: 'cde-nowhere' }, true)],
    pod: { runtimeClassName: `${unique}-runtime` },
  },
  {
    name: 'sysctl-forbidden',
    code: 'node-refused',
    message: /^The node \S+ refused the pod: .*forbidden sysctl: "net\.core\.somaxconn" not allowlisted\.$/,
    fatal: true,
    pod: { securityContext: { sysctls: [{ name: 'net.core.somaxconn', value: '1024' }] } },
    end: /forbidden sysctl/,
  },
  {
    name: 'not-ready',
    code: 'not-ready',
    message: /^The container agent runs but is not ready\.$/,
    fatal: false,
    container: { readinessProbe: { exec: { command: ['false'] }, periodSeconds: 1 } },
  },
];
