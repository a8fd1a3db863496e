import { z } from 'zod';
import { Action } from './actions.ts';
import { endpoint } from './endpoint.ts';
import { boundedRecord, Id, Moment, WorkspaceRef } from './names.ts';

/** What a cluster is called, in templates and by admins. */
export const ClusterName = z
  .string()
  .max(40)
  .regex(
    /^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$/,
    'use lower-case letters, digits and dashes, starting with a letter, at most 40',
  );

const Labels = boundedRecord(z.string().max(63), z.string().max(63), 64);

/** A Kubernetes cluster that workspaces run on. Its credentials are sealed in the database and never shown. */
export const Cluster = z.object({
  id: Id,
  name: ClusterName,
  region: z.string(),
  labels: Labels,
  isDefault: z.boolean().describe('Templates that name no cluster use it'),
  credentials: z.enum(['kubeconfig', 'in-cluster']),
  endpoint: z.string().describe('The API server as the control plane reaches it'),
  publicEndpoint: z.string().nullable().describe('As developers reach it, where that differs'),
  state: z.enum(['connecting', 'ready', 'away']),
  reason: z.string().nullable().describe('Why it is away, in one sentence'),
  version: z.string().nullable(),
  seenAt: Moment.nullable(),
  workspaces: z.number().int(),
  createdAt: Moment,
});
export type Cluster = z.infer<typeof Cluster>;

/** What the control plane lacks on a cluster, or finds there. */
export const ClusterCheck = z.object({
  name: z.string(),
  ok: z.boolean(),
  message: z.string(),
  hint: z.string().optional(),
  actions: z.array(Action).optional(),
});
export type ClusterCheck = z.infer<typeof ClusterCheck>;

/** A namespace of ours without a workspace, or a workspace whose namespace vanished. */
export const Orphan = z.object({
  kind: z.enum(['namespace', 'workspace', 'home']),
  cluster: ClusterName,
  name: z.string().describe('The namespace, volume or `owner/name`'),
  workspaceId: Id.nullable(),
  since: Moment.nullable(),
  reason: z.string(),
  action: z
    .enum(['delete', 'report', 'keep'])
    .describe('What the policy does with it; `keep`: it holds something that nothing else has'),
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
  kubeconfig: z.string().max(262_144).optional().describe('A kubeconfig; its current context is used'),
  inCluster: z.boolean().optional().describe("The service account of the server's own pod instead"),
};
export const addCluster = endpoint({
  method: 'POST',
  path: '/api/v1/clusters',
  tag,
  summary: 'Add a cluster; refused when its credentials do not work',
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
  summary: 'Forget a cluster that has no workspaces; nothing on it is deleted',
  permission: 'cluster:write',
  params,
});
export const listOrphans = endpoint({
  method: 'GET',
  path: '/api/v1/orphans',
  tag,
  summary: 'What the sweep finds: namespaces without a workspace, workspaces without a namespace',
  permission: 'cluster:read',
  maxConcurrent: 4,
  query: z.object({ cluster: ClusterName.optional().describe('Of this one alone') }),
  reply: z.object({ items: z.array(Orphan), unseen: z.array(z.string()).describe('Clusters that are away') }),
});
export const cleanOrphans = endpoint({
  method: 'POST',
  path: '/api/v1/orphans/clean',
  tag,
  summary: 'Clean by policy; with `dryRun` only say what would be done',
  permission: 'cluster:write',
  body: z.object({
    dryRun: z.boolean().default(true),
    cluster: ClusterName.optional().describe('On this one alone'),
  }),
  reply: z.object({ items: z.array(Orphan), done: z.boolean() }),
});

export const AdoptedHome = z.object({
  id: Id.describe('Of the kept home: a new workspace is restored from it'),
  owner: z.string(),
  workspace: z.string().describe('What its workspace was called'),
  cluster: ClusterName,
  volume: z.string(),
  size: z.string().nullable(),
  keptUntil: Moment,
});
export type AdoptedHome = z.infer<typeof AdoptedHome>;
export const adoptOrphan = endpoint({
  method: 'POST',
  path: '/api/v1/orphans/adopt',
  tag,
  summary: 'Make an orphaned home a kept home of a user; of a namespace, which is deleted, the home in it',
  permission: 'cluster:write',
  body: z.object({
    cluster: ClusterName,
    name: z.string().min(1).max(253).describe('The namespace or volume, as the list of orphans has it'),
    owner: z.string().min(1).max(80).optional().describe('A username; without it whose the home was'),
  }),
  reply: z.object({ items: z.array(AdoptedHome) }),
});

/** Where BuildKit listens in the namespace of a workspace. */
export const BuilderAddress = z.object({
  pod: z.string(),
  host: z.string().describe('Its name in the namespace, as the workspace itself reaches it'),
  port: z.number().int(),
  registrySecret: z.boolean().describe('Whether the template brings credentials of a registry'),
});
export type BuilderAddress = z.infer<typeof BuilderAddress>;

/** A builder and how it is. */
export const Builder = BuilderAddress.extend({
  ready: z.boolean(),
  reason: z
    .object({
      code: z.string(),
      message: z.string(),
      detail: z.string().optional(),
      hint: z.string().optional(),
      actions: z.array(Action).optional(),
      fatal: z.boolean().describe('It will not go away by itself'),
    })
    .nullable()
    .describe('What keeps it from being ready, where the cluster says'),
});
export type Builder = z.infer<typeof Builder>;

/** Short-lived credentials of a workspace's own namespace. */
export const KubeCredentials = z.object({
  cluster: ClusterName,
  server: z.string(),
  internal: z
    .boolean()
    .describe(
      'The server is named as from inside its cluster: no administrator has said how developers reach it',
    ),
  certificateAuthority: z.string().nullable().describe('PEM'),
  namespace: z.string(),
  token: z.string().describe('Of the service account of the developer; good for this namespace only'),
  expiresAt: Moment,
  builder: BuilderAddress.nullable().describe('Of a template that asks for one'),
});
export type KubeCredentials = z.infer<typeof KubeCredentials>;

export const createKubeCredentials = endpoint({
  method: 'POST',
  path: '/api/v1/workspaces/:workspace/kube-credentials',
  tag: 'workspaces',
  summary: 'Credentials for kubectl in the namespace of the workspace, an hour to live',
  permission: 'workspace:connect',
  params: z.object({ workspace: WorkspaceRef }),
  body: z.object({}).optional(),
  reply: KubeCredentials,
});

export const getBuilder = endpoint({
  method: 'GET',
  path: '/api/v1/workspaces/:workspace/builder',
  tag: 'workspaces',
  summary: 'The builder of images in the namespace of the workspace, and whether it is ready',
  permission: 'workspace:connect',
  maxConcurrent: 16,
  params: z.object({ workspace: WorkspaceRef }),
  reply: Builder,
});
export const createBuilderCredentials = endpoint({
  method: 'POST',
  path: '/api/v1/workspaces/:workspace/builder/credentials',
  tag: 'workspaces',
  summary: "The credentials of registries that the template brings, in the form of Docker's config.json",
  permission: 'workspace:connect',
  params: z.object({ workspace: WorkspaceRef }),
  body: z.object({}).optional(),
  reply: z.object({ auths: z.record(z.string(), z.record(z.string(), z.unknown())) }),
});
