import { z } from 'zod';
import { DailySchedule } from './activity.ts';
import { DirectListen, PathKind } from './agent.ts';
import { boundedRecord, maxInteger, TemplateName } from './names.ts';
import { Figure, Parameter, Text } from './template-parameters.ts';

/** A duration in a template: `90s`, `10m`, `2h`. */
export const Duration = z
  .string()
  .max(20)
  .regex(/^\d+(ms|s|m|h)$/, 'a number and a unit: 90s, 10m, 2h');

/** Environment variables; a value can contain an expression. */
const Env = boundedRecord(
  z
    .string()
    .max(200)
    .regex(/^[A-Za-z_][A-Za-z0-9_]*$/),
  z.union([z.string().max(32_768), Figure, z.boolean()]),
  200,
);

/** Settings of the `local` provider: limits, which apply if the machine permits cgroups. */
export const LocalSection = z.strictObject({
  memory: z.union([Text, Figure]).optional().describe('For example 2Gi, or an expression'),
  cpus: z.union([Text, Figure]).optional(),
  processes: z.union([Text, Figure]).optional(),
  env: Env.optional(),
});

/** A number, a quantity such as 2Gi, or an expression. */
const Amount = z.union([z.string().max(400), Figure]);
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

/** Larger numbers are written as a text. */
const maxSysctl = 2 ** 52;
const SysctlValue = z.union([z.string().min(1).max(200), z.number().int().min(-maxSysctl).max(maxSysctl)]);

/** Settings of the kernel that a virtual machine has to itself. noded applies them; docs/kernel-profiles.md. */
export const KernelSection = z.strictObject({
  sysctls: boundedRecord(
    z
      .string()
      .max(200)
      .regex(
        /^([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+|net\.ipv[46]\.(conf|neigh)\.\*\.[A-Za-z0-9_-]+)$/,
        'write it with dots: fs.aio-max-nr',
      ),
    z.union([SysctlValue, z.strictObject({ atLeast: SysctlValue })]),
    100,
  )
    .default({})
    .describe('An exact value, or `{ atLeast: NUMBER }`'),
  transparentHugePages: z
    .strictObject({
      enabled: z.enum(['always', 'madvise', 'never']).optional(),
      defrag: z.enum(['always', 'defer', 'defer+madvise', 'madvise', 'never']).optional(),
    })
    .optional(),
  modules: z
    .array(
      z
        .string()
        .max(64)
        .regex(/^[A-Za-z0-9_-]+$/, 'write the name of a kernel module: br_netfilter'),
    )
    .max(64)
    .default([])
    .describe('Kernel modules to load'),
});
export type KernelSection = z.infer<typeof KernelSection>;

const AwsName = z.string().max(128);

/** Settings of the `ec2` provider. Strings can contain expressions. */
export const Ec2Section = z.strictObject({
  image: z.string().max(400).describe('An AMI: its id, or a pattern of its name, whose newest match is used'),
  imageOwner: AwsName.optional().describe(
    'Whose AMIs a pattern matches: an account, or amazon; by default your own',
  ),
  instanceType: z.string().max(400),
  user: z
    .union([z.string().max(400), z.number().int().min(0).max(maxInteger)])
    .default(1000)
    .describe('The uid of the developer'),
  zone: z.string().max(400).optional().describe('The availability zone; a home elsewhere is moved there'),
  subnets: z
    .array(AwsName)
    .max(20)
    .default([])
    .describe('By default those of the default VPC. Homes are created in one of their zones'),
  securityGroups: z
    .array(AwsName)
    .max(16)
    .default([])
    .describe('By default one that permits no incoming connections'),
  publicAddress: z.boolean().optional().describe('By default as the subnet says'),
  instanceProfile: AwsName.optional().describe('The role that programs of the workspace have on AWS'),
  disk: Amount.optional().describe('The size of the root disk'),
  volumeType: z.enum(['gp3', 'gp2', 'io2', 'io1', 'st1', 'sc1']).default('gp3').describe('Of the home'),
  kmsKey: z.string().max(400).optional().describe('Encrypts the volumes; by default the key of the account'),
  spot: z.boolean().default(false).describe('Cheaper, and AWS can reclaim the instance at any time'),
  onStop: z
    .enum(['terminate', 'keep'])
    .default('terminate')
    .describe('`keep`: the next start boots the same instance with its root disk'),
  snapshots: z
    .strictObject({ keep: z.number().int().min(1).max(100) })
    .optional()
    .describe('A snapshot of the home after each stop'),
  processes: Amount.optional().describe('The limit of processes and threads; by default 8192'),
  allowPrivilegeEscalation: z
    .boolean()
    .default(false)
    .describe('Lets the developer become root inside the instance with sudo'),
  tags: boundedRecord(
    z
      .string()
      .max(127)
      .regex(/^(?!aws:|cde:|Name$)/, 'use another key: aws:, cde: and Name are taken'),
    z.string().max(400),
    30,
  )
    .default({})
    .describe('Tags of instances and volumes, for the bill'),
  kernel: KernelSection.optional().describe("Settings of the machine's own kernel"),
  env: Env.default({}),
});
export type Ec2Section = z.infer<typeof Ec2Section>;

const GcpName = z.string().max(400);

/** Settings of the `gce` provider. Strings can contain expressions. */
export const GceSection = z.strictObject({
  image: z.string().max(400).describe('An image, or a family of images, whose newest one is used'),
  imageProject: GcpName.optional().describe('The project that the image belongs to; by default your own'),
  machineType: z.string().max(400),
  user: z
    .union([z.string().max(400), z.number().int().min(0).max(maxInteger)])
    .default(1000)
    .describe('The uid of the developer'),
  zones: z
    .array(z.string().max(400))
    .max(20)
    .default([])
    .describe('By default all zones of the region; a home elsewhere is moved to the first one'),
  network: GcpName.default('default').describe('The VPC network'),
  subnetwork: GcpName.optional().describe('Required in networks without automatic subnetworks'),
  networkTags: z
    .array(z.string().max(63))
    .max(16)
    .default([])
    .describe('By default one whose firewall rule permits no incoming connections'),
  publicAddress: z.boolean().default(false).describe('Without it, the network needs Cloud NAT'),
  serviceAccount: GcpName.optional().describe('What programs of the workspace are on Google Cloud'),
  disk: Amount.optional().describe('The size of the boot disk'),
  diskType: GcpName.default('pd-balanced').describe('Of the home and the boot disk'),
  kmsKey: GcpName.optional().describe('Encrypts the disks; by default a key of Google'),
  shielded: z
    .boolean()
    .default(true)
    .describe('Secure Boot, a virtual TPM and integrity monitoring, which the image has to support'),
  spot: z.boolean().default(false).describe('Cheaper, and Google can reclaim the machine at any time'),
  onStop: z
    .enum(['terminate', 'keep'])
    .default('terminate')
    .describe('`keep`: the next start boots the same machine with its boot disk'),
  snapshots: z
    .strictObject({ keep: z.number().int().min(1).max(100) })
    .optional()
    .describe('A snapshot of the home after each stop'),
  processes: Amount.optional().describe('The limit of processes and threads; by default 8192'),
  allowPrivilegeEscalation: z
    .boolean()
    .default(false)
    .describe('Lets the developer become root inside the machine with sudo'),
  labels: boundedRecord(
    z
      .string()
      .max(63)
      .regex(/^(?!cde-)[a-z][a-z0-9_-]*$/, 'a lower-case key that does not start with cde-'),
    z.string().max(400),
    40,
  )
    .default({})
    .describe('Labels of machines and disks, for the bill'),
  kernel: KernelSection.optional().describe("Settings of the machine's own kernel"),
  env: Env.default({}),
});
export type GceSection = z.infer<typeof GceSection>;

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
