import { z } from 'zod';
import { DirectListen, PathKind } from './agent.ts';
import { endpoint } from './endpoint.ts';
import { boundedRecord, Id, Moment, maxInteger, PageQuery, page, TemplateName } from './names.ts';

/** A value that a developer may choose, after defaults are filled in. */
const Text = z.string().max(16_384);
const Figure = z.number().min(-1e15).max(1e15);
export const ParameterValue = z.union([Text, Figure, z.boolean(), z.array(Text).max(100)]);
export type ParameterValue = z.infer<typeof ParameterValue>;
export const ParameterValues = boundedRecord(z.string().max(41), ParameterValue, 50);
export type ParameterValues = z.infer<typeof ParameterValues>;

const parameterBase = {
  name: z
    .string()
    .max(41)
    .regex(
      /^[a-z][a-z0-9_]{0,40}$/,
      'use lower-case letters, digits and underscores, starting with a letter',
    ),
  title: z.string().max(80).optional(),
  description: z.string().max(1000).optional(),
  /** A parameter that may change only when the workspace is created. */
  immutable: z.boolean().default(false),
};
const option = <T extends z.ZodType>(value: T) =>
  z.strictObject({
    value,
    title: z.string().max(80).optional(),
    description: z.string().max(400).optional(),
  });

/** One typed parameter of a template. Without `default` the developer must give it. */
export const Parameter = z.discriminatedUnion('type', [
  z.strictObject({
    ...parameterBase,
    type: z.literal('string'),
    default: Text.optional(),
    minLength: z.number().int().min(0).max(maxInteger).optional(),
    maxLength: z.number().int().min(1).max(maxInteger).optional(),
    pattern: z.string().max(400).optional().describe('A regular expression that the whole value must match'),
    options: z.array(option(Text)).min(1).max(1000).optional(),
  }),
  z.strictObject({
    ...parameterBase,
    type: z.literal('number'),
    default: Figure.optional(),
    min: Figure.optional(),
    max: Figure.optional(),
    integer: z.boolean().default(false),
    options: z.array(option(Figure)).min(1).max(1000).optional(),
  }),
  z.strictObject({ ...parameterBase, type: z.literal('boolean'), default: z.boolean().optional() }),
  z.strictObject({
    ...parameterBase,
    type: z.literal('list'),
    default: z.array(Text).max(100).optional(),
    maxItems: z.number().int().min(1).max(100).default(20),
    options: z.array(option(Text)).min(1).max(1000).optional(),
  }),
]);
export type Parameter = z.infer<typeof Parameter>;

/** A duration in a template: `90s`, `10m`, `2h`. */
export const Duration = z
  .string()
  .max(20)
  .regex(/^\d+(ms|s|m|h)$/, 'a number and a unit: 90s, 10m, 2h');

/** Variables of the environment; a value may hold an expression. */
const Env = boundedRecord(
  z
    .string()
    .max(200)
    .regex(/^[A-Za-z_][A-Za-z0-9_]*$/),
  z.union([z.string().max(32_768), Figure, z.boolean()]),
  200,
);

/** Of the `local` provider: limits that hold where the machine permits cgroups. */
export const LocalSection = z.strictObject({
  memory: z.union([Text, Figure]).optional().describe('For example 2Gi; an expression may stand here'),
  cpus: z.union([Text, Figure]).optional(),
  processes: z.union([Text, Figure]).optional(),
  env: Env.optional(),
});

/** A number or a quantity as text; an expression may stand here. */
const Amount = z.union([z.string().max(400), Figure]);
const DnsLabel = z
  .string()
  .max(52)
  .regex(
    /^[a-z]([-a-z0-9]{0,50}[a-z0-9])?$/,
    'use lower-case letters, digits and dashes, starting with a letter',
  );

/** A label's key as Kubernetes has it; its prefix is a domain. */
const LabelKey = z
  .string()
  .max(317)
  .regex(
    /^(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?\/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/,
    'use letters, digits, "-", "_" and ".", behind a domain and "/" where it has one',
  );

/** As Kubernetes has it. */
const Toleration = z.strictObject({
  key: LabelKey.optional(),
  operator: z.enum(['Exists', 'Equal']).optional(),
  value: z.string().max(400).optional(),
  effect: z.enum(['NoSchedule', 'PreferNoSchedule', 'NoExecute']).optional(),
  tolerationSeconds: Amount.optional(),
});

/** A process beside the workspace, in the same namespace: a database, a cache. Reached by its name. */
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
    .describe('The uid that it runs as; without it that of the image'),
  ready: z
    .strictObject({
      port: z.union([Text, z.number().int().min(1).max(65535)]).optional(),
      command: z.array(z.string().max(2000)).max(50).optional(),
    })
    .optional()
    .describe(
      'It is ready when this port takes connections, or this command ends with 0; without it when it runs',
    ),
  storage: z
    .strictObject({ path: z.string().startsWith('/').max(400), size: Amount })
    .optional()
    .describe('A volume that outlives stops and updates, as the home does'),
});

/** BuildKit in the namespace. */
export const KubernetesBuilder = z.strictObject({
  image: z
    .string()
    .max(400)
    .optional()
    .describe("BuildKit's, with `buildkitd` as its entrypoint; without it that of the server's settings"),
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

/** Of the `kubernetes` provider. Strings may hold expressions, but for names and kinds. */
export const KubernetesSection = z.strictObject({
  cluster: z
    .union([
      z.string().max(400),
      z.strictObject({ labels: boundedRecord(LabelKey, z.string().max(400), 64) }),
    ])
    .optional()
    .describe('A cluster by name, or by labels that it must carry; without it the default cluster'),
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
    .describe('Secrets that are copied into the namespace; each must carry the label cde.dev/copy=true'),
  user: z
    .union([z.string().max(400), z.number().int().min(0).max(maxInteger)])
    .default(1000)
    .describe('The uid inside, or `image` for that of the image'),
  cpus: Amount.optional().describe('At most so many cores; half of it is requested'),
  memory: Amount.optional().describe('At most so much; all of it is requested'),
  requests: z.strictObject({ cpus: Amount.optional(), memory: Amount.optional() }).optional(),
  storageClass: z
    .string()
    .max(400)
    .optional()
    .describe('Of the home; without it the default class of the cluster'),
  readOnlyRoot: z.boolean().default(false),
  allowPrivilegeEscalation: z
    .boolean()
    .default(false)
    .describe('Programs such as sudo make their user root; not with podSecurity: restricted'),
  startTimeout: Duration.optional().describe(
    'A start whose pod is not up by then has failed. Without it 10m, and 30m while its image is pulled',
  ),
  env: Env.default({}),
  services: z.array(KubernetesService).max(20).default([]),
  nodeSelector: boundedRecord(LabelKey, z.string().max(400), 64).default({}),
  tolerations: z.array(Toleration).max(20).default([]),
  kernelProfile: DnsLabel.max(48, 'use at most 48 characters: it becomes part of a label')
    .optional()
    .describe('Only nodes on which noded keeps this profile'),
  podSecurity: z.enum(['restricted', 'baseline', 'privileged']).default('baseline'),
  quota: z
    .strictObject({
      cpus: Amount.optional(),
      memory: Amount.optional(),
      storage: Amount.optional(),
      pods: Amount.optional(),
    })
    .default({})
    .describe('Of the whole namespace'),
  egress: z
    .enum(['all', 'namespace'])
    .default('all')
    .describe('`namespace`: only DNS, the server and the namespace itself may be reached'),
  builder: z
    .union([z.boolean(), KubernetesBuilder])
    .default(false)
    .describe('BuildKit in the namespace, for `cde build`'),
  manifests: z
    .array(z.string().max(200))
    .max(50)
    .optional()
    .describe('YAML files of the folder, applied beside; without it all of manifests/'),
});
export type KubernetesSection = z.infer<typeof KubernetesSection>;

/** One manifest of the admin's own, from the template's folder; its texts may hold expressions. */
export const Manifest = z
  .object({
    apiVersion: z.string(),
    kind: z.string(),
    metadata: z.object({ name: z.string() }).loose(),
  })
  .loose();
export type Manifest = z.infer<typeof Manifest>;

/** How sessions may reach the workspaces. No expressions: it is not for a developer to choose. */
export const ConnectionSection = z.strictObject({
  paths: z
    .array(PathKind)
    .min(1)
    .max(3)
    .optional()
    .describe('Of the kinds that the server allows, those that may carry sessions; all without'),
  regions: z
    .array(z.string().min(1).max(80))
    .min(1)
    .max(20)
    .optional()
    .describe('Only satellites of these regions; any without'),
  direct: DirectListen.optional(),
});
export type ConnectionSection = z.infer<typeof ConnectionSection>;

/** template.yaml. Strings in `home`, `startup`, `env` and the provider's section may hold `${{ CEL }}`. */
export const TemplateFile = z.strictObject({
  name: TemplateName,
  title: z.string().max(80).optional(),
  description: z.string().max(4000).optional(),
  icon: z.string().max(200).optional().describe('An emoji, or a path within the folder'),
  provider: z.enum(['local', 'kubernetes']),
  parameters: z.array(Parameter).max(50).default([]),
  home: z
    .strictObject({
      size: z.string().max(400).optional().describe('A limit where the provider has one: 20Gi'),
    })
    .default({}),
  env: Env.default({}),
  startup: z
    .strictObject({
      script: z.string().max(65536).describe('Run by the login shell in the home, on every start'),
      timeout: Duration.default('10m'),
    })
    .optional(),
  connection: ConnectionSection.optional(),
  local: LocalSection.default({}),
  kubernetes: KubernetesSection.optional().describe('Needed where the provider is kubernetes'),
});
export type TemplateFile = z.infer<typeof TemplateFile>;

/** What a version keeps of its folder: the file, and the manifests that it names, read. */
export type TemplateContent = TemplateFile & { manifests?: Manifest[] };

export const TemplateVersion = z.object({
  id: Id,
  templateId: Id,
  number: z.number().int(),
  message: z.string(),
  provider: z.string(),
  parameters: z.array(Parameter),
  active: z.boolean().describe('New workspaces and updates use the active version'),
  createdAt: Moment,
  createdBy: z.string().nullable(),
});
export type TemplateVersion = z.infer<typeof TemplateVersion>;

export const Template = z.object({
  id: Id,
  name: TemplateName,
  title: z.string(),
  description: z.string(),
  icon: z.string(),
  provider: z.string(),
  activeVersion: TemplateVersion,
  workspaces: z.number().int().describe('How many workspaces are made from it'),
  createdAt: Moment,
  updatedAt: Moment,
});
export type Template = z.infer<typeof Template>;

/** A template's folder as it travels: relative path to UTF-8 text. At most 64 files, 512 KiB together. */
export const TemplateFiles = boundedRecord(z.string().max(200), z.string().max(262144), 64);

export const Fault = z.object({
  file: z.string(),
  line: z.number().int().describe('From 1'),
  column: z.number().int().describe('From 1'),
  path: z.string().describe('Where in the file: parameters[0].default'),
  message: z.string(),
  hint: z.string().optional(),
});
export type Fault = z.infer<typeof Fault>;

const tag = 'templates';
const VersionNumber = z.coerce.number().int().min(1).max(maxInteger);
const nameParams = z.object({ template: z.string().max(80).describe("A template's name or id") });

export const listTemplates = endpoint({
  method: 'GET',
  path: '/api/v1/templates',
  tag,
  summary: 'List templates',
  permission: 'template:read',
  query: PageQuery,
  reply: page(Template),
});
export const getTemplate = endpoint({
  method: 'GET',
  path: '/api/v1/templates/:template',
  tag,
  summary: 'Show a template',
  permission: 'template:read',
  params: nameParams,
  reply: Template,
});
export const listTemplateVersions = endpoint({
  method: 'GET',
  path: '/api/v1/templates/:template/versions',
  tag,
  summary: "List a template's versions, newest first",
  permission: 'template:read',
  params: nameParams,
  query: PageQuery,
  reply: page(TemplateVersion),
});
export const getTemplateVersionFiles = endpoint({
  method: 'GET',
  path: '/api/v1/templates/:template/versions/:number/files',
  tag,
  summary: 'The folder of a version',
  permission: 'template:write',
  maxConcurrent: 16,
  params: nameParams.extend({ number: VersionNumber }),
  reply: z.object({ files: TemplateFiles }),
});
export const validateTemplate = endpoint({
  method: 'POST',
  path: '/api/v1/templates/validate',
  tag,
  summary: 'Check a folder without publishing it',
  permission: 'template:write',
  maxConcurrent: 8,
  body: z.object({
    files: TemplateFiles,
    cluster: z
      .string()
      .max(80)
      .optional()
      .describe("Tries its objects there too, and changes nothing; '' for the one that the template chooses"),
    parameters: ParameterValues.optional().describe(
      'Of the workspace that is tried; without them the defaults',
    ),
  }),
  reply: z.object({
    valid: z.boolean(),
    faults: z.array(Fault),
    refused: z
      .array(z.object({ message: z.string(), detail: z.string().optional(), hint: z.string().optional() }))
      .describe('What the cluster says against its objects'),
    warnings: z.array(Fault).describe('No faults, but perhaps not what is meant'),
    name: z.string().nullable(),
    parameters: z.array(Parameter),
  }),
});
export const publishTemplate = endpoint({
  method: 'POST',
  path: '/api/v1/templates',
  tag,
  summary: 'Publish a folder as a new version (and a new template, if the name is new)',
  permission: 'template:write',
  maxConcurrent: 8,
  body: z.object({
    files: TemplateFiles,
    message: z.string().max(500).default(''),
    activate: z.boolean().default(true),
  }),
  reply: Template,
  status: 201,
  idempotent: true,
});
export const activateTemplateVersion = endpoint({
  method: 'POST',
  path: '/api/v1/templates/:template/versions/:number/activate',
  tag,
  summary: 'Make a version the active one',
  permission: 'template:write',
  params: nameParams.extend({ number: VersionNumber }),
  reply: Template,
  idempotent: true,
});
export const deleteTemplate = endpoint({
  method: 'DELETE',
  path: '/api/v1/templates/:template',
  tag,
  summary: 'Delete a template that no workspace uses',
  permission: 'template:write',
  params: nameParams,
});
