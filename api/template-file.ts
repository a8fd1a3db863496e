import { z } from 'zod';
import { DailySchedule } from './activity.ts';
import { DirectListen, PathKind } from './agent.ts';
import { boundedRecord, maxInteger, TemplateName } from './names.ts';
import { Ec2Section, GceSection } from './template-cloud.ts';
import { Figure, Parameter, Text } from './template-parameters.ts';
import { Amount, Env } from './template-values.ts';

/** A duration in a template: `90s`, `10m`, `2h`. */
export const Duration = z
  .string()
  .max(20)
  .regex(/^\d+(ms|s|m|h)$/, 'a number and a unit: 90s, 10m, 2h');

/** Settings of the `local` provider: limits, which apply if the machine permits cgroups. */
export const LocalSection = z.strictObject({
  memory: z.union([Text, Figure]).optional().describe('For example 2Gi, or an expression'),
  cpus: z.union([Text, Figure]).optional(),
  processes: z.union([Text, Figure]).optional(),
  env: Env.optional(),
});

const DnsLabel = z
  .string()
  .max(52)
  .regex(
    /^[a-z]([-a-z0-9]{0,50}[a-z0-9])?$/,
    'use lower-case letters, digits and dashes, starting with a letter',
  );

/** The key of a Kubernetes label, with an optional domain as its prefix. */
const LabelKey = z
  .string()
  .max(317)
  .regex(
    /^(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?\/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/,
    'use letters, digits, "-", "_" and ".", optionally after a domain and "/"',
  );

/** As in a pod's spec. */
const Toleration = z.strictObject({
  key: LabelKey.optional(),
  operator: z.enum(['Exists', 'Equal']).optional(),
  value: z.string().max(400).optional(),
  effect: z.enum(['NoSchedule', 'PreferNoSchedule', 'NoExecute']).optional(),
  tolerationSeconds: Amount.optional(),
});

/** A service beside the workspace in the same namespace, such as a database, reachable by its name. */
export const KubernetesService = z.strictObject({
  name: DnsLabel,
  image: z.string().max(400),
  ports: z
    .array(z.union([Text, z.number().int().min(1).max(65535)]))
    .max(20)
    .default([]),
  env: Env.default({}),
  command: z.array(z.string().max(2000)).max(50).optional(),
  args: z.array(z.string().max(2000)).max(50).optional(),
  cpus: Amount.optional(),
  memory: Amount.optional(),
  user: z
    .union([z.string().max(400), z.number().int().min(0).max(maxInteger)])
    .optional()
    .describe('The uid that it runs as; by default that of the image'),
  ready: z
    .strictObject({
      port: z.union([Text, z.number().int().min(1).max(65535)]).optional(),
      command: z.array(z.string().max(2000)).max(50).optional(),
    })
    .optional()
    .describe(
      'It is ready when this port accepts connections or this command exits with 0; by default when it runs',
    ),
  storage: z
    .strictObject({ path: z.string().startsWith('/').max(400), size: Amount })
    .optional()
    .describe('A volume that survives stops and updates, like the home'),
});

/** A BuildKit in the namespace of the workspace. */
export const KubernetesBuilder = z.strictObject({
  image: z
    .string()
    .max(400)
    .optional()
    .describe(
      "A BuildKit image with `buildkitd` as its entrypoint; by default that of the server's settings",
    ),
  cpus: Amount.optional(),
  memory: Amount.optional(),
  cache: Amount.default('20Gi'),
  rootless: z.boolean().default(true),
  registrySecret: z
    .string()
    .max(320)
    .regex(/^[-a-z0-9.]+\/[-a-z0-9.]+$/, 'write NAMESPACE/NAME')
    .optional(),
  insecureRegistries: z.array(z.string().max(400)).max(10).default([]),
});

/** Settings of the `kubernetes` provider. Strings other than names and kinds can contain expressions. */
export const KubernetesSection = z.strictObject({
  cluster: z
    .union([
      z.string().max(400),
      z.strictObject({ labels: boundedRecord(LabelKey, z.string().max(400), 64) }),
    ])
    .optional()
    .describe('A cluster by its name or by labels that it must have; by default the default cluster'),
  image: z.string().max(400),
  pullPolicy: z.enum(['Always', 'IfNotPresent', 'Never']).optional(),
  pullSecrets: z
    .array(
      z
        .string()
        .max(320)
        .regex(/^[-a-z0-9.]+\/[-a-z0-9.]+$/, 'write NAMESPACE/NAME'),
    )
    .max(10)
    .default([])
    .describe('Secrets to copy into the namespace; each needs the label cde.dev/copy=true'),
  user: z
    .union([z.string().max(400), z.number().int().min(0).max(maxInteger)])
    .default(1000)
    .describe('The uid of the workspace, or `image` for that of the image'),
  cpus: Amount.optional().describe('The limit in cores; half of it is requested'),
  memory: Amount.optional().describe('The limit; all of it is requested'),
  requests: z.strictObject({ cpus: Amount.optional(), memory: Amount.optional() }).optional(),
  storageClass: z
    .string()
    .max(400)
    .optional()
    .describe('The storage class of the home; by default that of the cluster'),
  readOnlyRoot: z.boolean().default(false),
  allowPrivilegeEscalation: z
    .boolean()
    .default(false)
    .describe('Lets programs such as sudo become root; not possible with podSecurity: restricted'),
  startTimeout: Duration.optional().describe(
    'How long a start can take until its pod runs; by default 10m, and 30m while its image is pulled',
  ),
  env: Env.default({}),
  services: z.array(KubernetesService).max(20).default([]),
  nodeSelector: boundedRecord(LabelKey, z.string().max(400), 64).default({}),
  tolerations: z.array(Toleration).max(20).default([]),
  kernelProfile: DnsLabel.max(48, 'use at most 48 characters: it becomes part of a label')
    .optional()
    .describe('Only nodes on which noded maintains this kernel profile'),
  podSecurity: z.enum(['restricted', 'baseline', 'privileged']).default('baseline'),
  quota: z
    .strictObject({
      cpus: Amount.optional(),
      memory: Amount.optional(),
      storage: Amount.optional(),
      pods: Amount.optional(),
    })
    .default({})
    .describe('Limits for the whole namespace'),
  egress: z
    .enum(['all', 'namespace'])
    .default('all')
    .describe('`namespace`: only DNS, the server and the namespace itself are reachable'),
  builder: z
    .union([z.boolean(), KubernetesBuilder])
    .default(false)
    .describe('BuildKit in the namespace, for `cde build`'),
  manifests: z
    .array(z.string().max(200))
    .max(50)
    .optional()
    .describe('YAML files of the folder to apply; by default all of manifests/'),
});
export type KubernetesSection = z.infer<typeof KubernetesSection>;

/** Settings of the `docker` provider. Strings can contain expressions. */
export const DockerSection = z.strictObject({
  image: z.string().max(400),
  pullPolicy: z.enum(['Always', 'IfNotPresent', 'Never']).default('IfNotPresent'),
  user: z
    .union([z.string().max(400), z.number().int().min(0).max(maxInteger)])
    .default(1000)
    .describe('The uid of the workspace, or `image` for the user of the image'),
  cpus: Amount.optional().describe('The limit in cores'),
  memory: Amount.optional().describe('The limit'),
  processes: Amount.optional().describe('The limit of processes and threads; by default 8192'),
  allowPrivilegeEscalation: z
    .boolean()
    .default(false)
    .describe('Lets programs such as sudo become root inside the container'),
  env: Env.default({}),
});
export type DockerSection = z.infer<typeof DockerSection>;

/** Settings of the `incus` provider. Strings can contain expressions. */
export const IncusSection = z.strictObject({
  image: z.string().max(400).describe('An alias or a fingerprint'),
  imageServer: z
    .url({ protocol: /^https$/ })
    .max(400)
    .optional()
    .describe('The image server to download from; by default the images of the Incus server itself'),
  type: z
    .enum(['auto', 'container', 'virtual-machine'])
    .default('auto')
    .describe('`auto`: a virtual machine if the host can run one, otherwise a system container'),
  user: z
    .union([z.string().max(400), z.number().int().min(0).max(maxInteger)])
    .default(1000)
    .describe('The uid of the developer'),
  cpus: Amount.optional().describe('The limit in cores'),
  memory: Amount.optional().describe('The limit'),
  disk: Amount.optional().describe('The size of the root disk'),
  processes: Amount.optional().describe('The limit of processes and threads; by default 8192'),
  project: z.string().max(400).default('default').describe('Created if it does not exist'),
  profiles: z.array(z.string().max(63)).max(20).default(['default']),
  network: z.string().max(400).optional().describe('By default that of the profiles'),
  pool: z.string().max(400).optional().describe('The storage pool; by default that of the profiles'),
  target: z.string().max(400).optional().describe('The member of a cluster, or @GROUP'),
  allowPrivilegeEscalation: z
    .boolean()
    .default(false)
    .describe('Lets the developer become root inside the instance with sudo'),
  nesting: z.boolean().default(false).describe('Lets containers run inside a system container'),
  snapshots: z
    .strictObject({
      schedule: z.string().max(100).describe('@hourly, @daily, or a cron expression'),
      expiry: z.string().max(20).optional().describe('How long a snapshot is kept: 2w'),
    })
    .optional()
    .describe('Snapshots of the home'),
  env: Env.default({}),
});
export type IncusSection = z.infer<typeof IncusSection>;

/** A manifest from the folder of the template; its strings can contain expressions. */
export const Manifest = z
  .object({
    apiVersion: z.string(),
    kind: z.string(),
    metadata: z.object({ name: z.string() }).loose(),
  })
  .loose();
export type Manifest = z.infer<typeof Manifest>;

/** How sessions can reach the workspaces. No expressions, because developers must not choose it. */
export const ConnectionSection = z.strictObject({
  paths: z
    .array(PathKind)
    .min(1)
    .max(3)
    .optional()
    .describe('The kinds of path that sessions can use, among those that the server allows; by default all'),
  regions: z
    .array(z.string().min(1).max(80))
    .min(1)
    .max(20)
    .optional()
    .describe('Only satellites of these regions; by default all'),
  direct: DirectListen.optional(),
});
export type ConnectionSection = z.infer<typeof ConnectionSection>;

/** When a workspace stops by itself, and starts. No expressions: developers choose within these and the bounds of the installation. */
export const IdleSection = z.strictObject({
  stopAfter: z
    .string()
    .max(20)
    .regex(/^(never|\d+(ms|s|m|h))$/, 'never, or a number and a unit: 90m, 2h')
    .optional()
    .describe('Stop after this long without activity; by default as the installation says'),
  maxRun: Duration.optional().describe('Stop this long after the start, whatever runs in it'),
  dormantAfterDays: z
    .number()
    .int()
    .min(1)
    .max(3650)
    .optional()
    .describe('Remove the compute of a workspace that nobody has used for so long; the home stays'),
  archiveAfterDays: z
    .number()
    .int()
    .min(1)
    .max(3650)
    .optional()
    .describe('Leave a workspace that nobody has used for so long out of lists; it is dormant then'),
  deleteAfterDays: z
    .number()
    .int()
    .min(1)
    .max(3650)
    .optional()
    .describe('Delete a workspace that nobody has used for so long, after notice; its home is retained'),
  schedule: DailySchedule.optional(),
  startOnConnect: z.boolean().optional().describe('Start a stopped workspace when a person connects'),
});

/** template.yaml. Strings in `home`, `env` and the provider's section can contain `${{ CEL }}`. */
export const TemplateFile = z.strictObject({
  name: TemplateName,
  title: z.string().max(80).optional(),
  description: z.string().max(4000).optional(),
  icon: z.string().max(200).optional().describe('An emoji, or a path within the folder'),
  provider: z.enum(['local', 'docker', 'incus', 'ec2', 'gce', 'kubernetes']),
  parameters: z.array(Parameter).max(50).default([]),
  home: z
    .strictObject({
      size: z.string().max(400).optional().describe('The size limit, if the provider supports one: 20Gi'),
    })
    .default({}),
  env: Env.default({}),
  startup: z
    .strictObject({
      script: z.string().max(65536).describe('Run by the login shell in the home on every start'),
      timeout: Duration.default('10m'),
    })
    .optional(),
  shutdown: z
    .strictObject({
      script: z.string().max(65536).describe('Run by the login shell in the home before every stop'),
      timeout: Duration.default('1m'),
    })
    .optional(),
  idle: IdleSection.optional(),
  connection: ConnectionSection.optional(),
  local: LocalSection.default({}),
  docker: DockerSection.optional().describe('Required if the provider is docker'),
  incus: IncusSection.optional().describe('Required if the provider is incus'),
  ec2: Ec2Section.optional().describe('Required if the provider is ec2'),
  gce: GceSection.optional().describe('Required if the provider is gce'),
  kubernetes: KubernetesSection.optional().describe('Required if the provider is kubernetes'),
});
export type TemplateFile = z.infer<typeof TemplateFile>;

/** The content of a version: the parsed file and its manifests. */
export type TemplateContent = TemplateFile & { manifests?: Manifest[] };
