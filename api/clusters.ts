import { z } from 'zod';
import { Action } from './actions.ts';
import { endpoint } from './endpoint.ts';
import { boundedRecord, Id, Moment, WorkspaceRef } from './names.ts';

/** The name of a cluster, used in templates. */
export const ClusterName = z
  .string()
  .max(40)
  .regex(
    /^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$/,
    'use lower-case letters, digits and dashes, starting with a letter, at most 40',
  );

const Labels = boundedRecord(z.string().max(63), z.string().max(63), 64);

/** A Kubernetes cluster on which workspaces run. Its credentials are encrypted in the database and never shown. */
export const Cluster = z.object({
  id: Id,
  name: ClusterName,
  region: z.string(),
  labels: Labels,
  isDefault: z.boolean().describe('Used by templates that name no cluster'),
  credentials: z.enum(['kubeconfig', 'in-cluster']),
  endpoint: z.string().describe('The URL at which the control plane reaches the API server'),
  publicEndpoint: z.string().nullable().describe('The URL at which developers reach it, if it differs'),
  state: z.enum(['connecting', 'ready', 'away']),
  reason: z.string().nullable().describe('Why it is unreachable, in one sentence'),
  version: z.string().nullable(),
  seenAt: Moment.nullable(),
  workspaces: z.number().int(),
  createdAt: Moment,
});
export type Cluster = z.infer<typeof Cluster>;

/** One check of what a cluster offers and what the control plane is missing there. */
export const ClusterCheck = z.object({
  name: z.string(),
  ok: z.boolean(),
  message: z.string(),
  hint: z.string().optional(),
  actions: z.array(Action).optional(),
});
export type ClusterCheck = z.infer<typeof ClusterCheck>;

/** Something of cde on a platform without a workspace, or a workspace whose namespace is gone. */
export const Orphan = z.object({
  kind: z
    .enum(['namespace', 'workspace', 'home', 'compute', 'network', 'volume'])
    .describe('`namespace` and `workspace` are on clusters. `compute`: a container or a process tree'),
  provider: z.string().describe('Whose platform it is on, such as `kubernetes` or `docker`'),
  cluster: ClusterName.nullable().describe('Null unless the provider is `kubernetes`'),
  name: z.string().describe('The namespace, container, network, volume, folder or `owner/name`'),
  workspaceId: Id.nullable(),
  since: Moment.nullable(),
  reason: z.string(),
  action: z
    .enum(['delete', 'report', 'keep'])
    .describe('What the policy does with it. `keep`: it holds data that exists nowhere else'),
});
export type Orphan = z.infer<typeof Orphan>;

const tag = 'clusters';
const params = z.object({ cluster: z.string().max(80).describe("A cluster's name or id") });

export const listClusters = endpoint({
  method: 'GET',
  path: '/api/v1/clusters',
  tag,
  summary: 'List clusters',
  permission: 'cluster:read',
  reply: z.object({ items: z.array(Cluster) }),
});
export const getCluster = endpoint({
  method: 'GET',
  path: '/api/v1/clusters/:cluster',
  tag,
  summary: 'Show a cluster, and check what it offers',
  permission: 'cluster:read',
  maxConcurrent: 8,
  params,
  reply: Cluster.extend({ checks: z.array(ClusterCheck) }),
});
const settings = {
  region: z.string().max(80).optional(),
  labels: Labels.optional(),
  isDefault: z.boolean().optional(),
  publicEndpoint: z
    .url({ protocol: /^https?$/, error: 'use an address such as https://kube.example.com' })
    .max(2000)
    .nullable()
    .optional(),
  kubeconfig: z.string().max(262_144).optional().describe('A kubeconfig. Its current context is used'),
  inCluster: z.boolean().optional().describe("Use the service account of the server's pod instead"),
};
export const addCluster = endpoint({
  method: 'POST',
  path: '/api/v1/clusters',
  tag,
  summary: 'Add a cluster; fails if its credentials do not work',
  permission: 'cluster:write',
  body: z.object({ name: ClusterName, ...settings }),
  reply: Cluster,
  status: 201,
  idempotent: true,
});
export const updateCluster = endpoint({
  method: 'PATCH',
  path: '/api/v1/clusters/:cluster',
  tag,
  summary: 'Change a cluster, or replace its credentials',
  permission: 'cluster:write',
  params,
  body: z.object(settings),
  reply: Cluster,
});
export const removeCluster = endpoint({
  method: 'DELETE',
  path: '/api/v1/clusters/:cluster',
  tag,
  summary: 'Remove a cluster that has no workspaces; nothing on it is deleted',
  permission: 'cluster:write',
  params,
});
export const listOrphans = endpoint({
  method: 'GET',
  path: '/api/v1/orphans',
  tag,
  summary:
    'List orphans: what is on clusters and engines without a workspace, and workspaces without a namespace',
  permission: 'cluster:read',
  maxConcurrent: 4,
  query: z.object({
    cluster: ClusterName.optional().describe('Only orphans on this cluster'),
    provider: z.string().max(40).optional().describe('Only orphans of this provider'),
  }),
  reply: z.object({
    items: z.array(Orphan),
    unseen: z.array(z.string()).describe('Clusters and providers that are unreachable'),
  }),
});
export const cleanOrphans = endpoint({
  method: 'POST',
  path: '/api/v1/orphans/clean',
  tag,
  summary: 'Clean up orphans as the policy says; with `dryRun`, only report what would be done',
  permission: 'cluster:write',
  body: z.object({
    dryRun: z.boolean().default(true),
    cluster: ClusterName.optional().describe('Only on this cluster'),
    provider: z.string().max(40).optional().describe('Only of this provider'),
  }),
  reply: z.object({ items: z.array(Orphan), done: z.boolean() }),
});

export const AdoptedHome = z.object({
  id: Id.describe('The id of the retained home, from which a new workspace can be restored'),
  owner: z.string(),
  workspace: z.string().describe('The name that its workspace had'),
  provider: z.string(),
  cluster: ClusterName.nullable(),
  volume: z.string(),
  size: z.string().nullable(),
  keptUntil: Moment,
});
export type AdoptedHome = z.infer<typeof AdoptedHome>;
export const adoptOrphan = endpoint({
  method: 'POST',
  path: '/api/v1/orphans/adopt',
  tag,
  summary:
    'Turn an orphaned home into a retained home of a user. A namespace is deleted, and the home in it is retained',
  permission: 'cluster:write',
  body: z.object({
    cluster: ClusterName.optional().describe('Its cluster; required if it is on one'),
    provider: z.string().max(40).optional(),
    name: z.string().min(1).max(253).describe('The namespace, volume or folder, as listed'),
    owner: z
      .string()
      .min(1)
      .max(80)
      .optional()
      .describe('A username; by default the user that the home belonged to'),
  }),
  reply: z.object({ items: z.array(AdoptedHome) }),
});

/** Where BuildKit listens in the namespace of a workspace. */
export const BuilderAddress = z.object({
  pod: z.string(),
  host: z.string().describe('Its host name inside the namespace'),
  port: z.number().int(),
  registrySecret: z.boolean().describe('Whether the template provides registry credentials'),
});
export type BuilderAddress = z.infer<typeof BuilderAddress>;

/** A builder and its state. */
export const Builder = BuilderAddress.extend({
  ready: z.boolean(),
  reason: z
    .object({
      code: z.string(),
      message: z.string(),
      detail: z.string().optional(),
      hint: z.string().optional(),
      actions: z.array(Action).optional(),
      fatal: z.boolean().describe('It will not resolve by itself'),
    })
    .nullable()
    .describe('Why it is not ready, if the cluster says so'),
});
export type Builder = z.infer<typeof Builder>;

/** Short-lived credentials for the namespace of a workspace. */
export const KubeCredentials = z.object({
  cluster: ClusterName,
  server: z.string(),
  internal: z
    .boolean()
    .describe(
      'The server address only works inside the cluster, because no administrator has set a public endpoint',
    ),
  certificateAuthority: z.string().nullable().describe('PEM'),
  namespace: z.string(),
  token: z.string().describe('Token of the service account of the developer, valid in this namespace only'),
  expiresAt: Moment,
  builder: BuilderAddress.nullable().describe('Null if the template asks for no builder'),
});
export type KubeCredentials = z.infer<typeof KubeCredentials>;

export const createKubeCredentials = endpoint({
  method: 'POST',
  path: '/api/v1/workspaces/:workspace/kube-credentials',
  tag: 'workspaces',
  summary: 'Create credentials for kubectl in the namespace of the workspace, valid for one hour',
  permission: 'workspace:connect',
  params: z.object({ workspace: WorkspaceRef }),
  body: z.object({}).optional(),
  reply: KubeCredentials,
});

export const getBuilder = endpoint({
  method: 'GET',
  path: '/api/v1/workspaces/:workspace/builder',
  tag: 'workspaces',
  summary: 'Show the image builder of the workspace and whether it is ready',
  permission: 'workspace:connect',
  maxConcurrent: 16,
  params: z.object({ workspace: WorkspaceRef }),
  reply: Builder,
});
export const createBuilderCredentials = endpoint({
  method: 'POST',
  path: '/api/v1/workspaces/:workspace/builder/credentials',
  tag: 'workspaces',
  summary: "Get the registry credentials of the template, in the format of Docker's config.json",
  permission: 'workspace:connect',
  params: z.object({ workspace: WorkspaceRef }),
  body: z.object({}).optional(),
  reply: z.object({ auths: z.record(z.string(), z.record(z.string(), z.unknown())) }),
});
