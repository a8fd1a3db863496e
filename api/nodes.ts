import { z } from 'zod';
import { ClusterName } from './clusters.ts';
import { endpoint } from './endpoint.ts';
import { Id, Moment, PageQuery, page, WorkspaceRef } from './names.ts';
import { workspaceStatuses } from './workspaces.ts';

/** A change of a value by another program than noded, and its repair. */
export const KernelDrift = z.object({
  at: Moment.describe('When it was noticed; repairs within a minute of each other are one drift'),
  sysctl: z.string(),
  from: z.string().describe('The value that the other program had set'),
  to: z.string().describe('The value that noded set again'),
  by: z.string().nullable().describe('The file or program that sets it, if known'),
});
export type KernelDrift = z.infer<typeof KernelDrift>;

/** A kernel profile on a node, as noded reports it. */
export const NodeKernelProfile = z.object({
  name: z.string(),
  state: z.enum(['ready', 'not-ready']),
  reason: z
    .string()
    .nullable()
    .describe('Why it is not ready, as a code: docs/kernel-profiles.md lists them'),
  message: z.string().nullable().describe('Why it is not ready, in words'),
  since: Moment.nullable().describe('Since when it is in this state'),
  lastDrift: KernelDrift.nullable(),
});
export type NodeKernelProfile = z.infer<typeof NodeKernelProfile>;

export const NodeResources = z.object({
  cpus: z.number().nullable(),
  memoryBytes: z.number().nullable(),
  storageBytes: z.number().nullable().describe('For containers and their images'),
  pods: z.number().nullable(),
});
export type NodeResources = z.infer<typeof NodeResources>;

/** A machine on which workspaces run: a node of a cluster, the host of a Docker engine, or the server's own. */
export const Node = z.object({
  name: z.string(),
  provider: z.string(),
  cluster: z.string().nullable().describe('Null for a host that belongs to no cluster'),
  state: z.enum(['ready', 'not-ready', 'unknown']),
  reason: z.string().nullable().describe('Why it is not ready'),
  schedulable: z.boolean().describe('Whether new workspaces can start on it (false after `kubectl cordon`)'),
  pool: z.string().nullable(),
  os: z.string().nullable(),
  kernel: z.string().nullable(),
  architecture: z.string().nullable(),
  runtime: z.string().nullable().describe('The kubelet or the container engine, with its version'),
  capacity: NodeResources,
  allocatable: NodeResources.describe('What pods can use'),
  workspaces: z.number().int().describe('How many workspaces have compute on it'),
  kernelProfiles: z.array(NodeKernelProfile),
  kernelFault: z.string().nullable().describe('What is wrong with the kernel profiles of the chart'),
  notRestored: z
    .array(z.object({ sysctl: z.string(), message: z.string() }))
    .describe('Sysctls that noded could not restore'),
});
export type Node = z.infer<typeof Node>;

export const NodeWorkspace = z.object({
  id: Id,
  owner: z.string(),
  name: z.string(),
  status: z.enum(workspaceStatuses),
});
export type NodeWorkspace = z.infer<typeof NodeWorkspace>;

/** What could not be read, so that nodes may be missing or out of date. */
export const UnseenNodes = z.object({
  name: z.string().describe('A cluster or a provider'),
  reason: z.string(),
});
export type UnseenNodes = z.infer<typeof UnseenNodes>;

const tag = 'nodes';

export const listNodes = endpoint({
  method: 'GET',
  path: '/api/v1/nodes',
  tag,
  summary: 'List nodes, with their workspaces and kernel profiles',
  permission: 'cluster:read',
  query: PageQuery.extend({
    cluster: ClusterName.optional().describe('Only nodes of this cluster'),
    workspace: WorkspaceRef.optional().describe('Only the node of this workspace'),
    profile: z.string().max(48).optional().describe('Only nodes that this kernel profile applies to'),
    show: z
      .enum(['all', 'problems'])
      .default('all')
      .describe('`problems`: only nodes that are not ready, or whose kernel profiles are not'),
    search: z.string().max(80).optional().describe('Only nodes whose name contains this'),
  }),
  reply: page(Node).extend({ unseen: z.array(UnseenNodes) }),
});
export const getNode = endpoint({
  method: 'GET',
  path: '/api/v1/nodes/:node',
  tag,
  summary: 'Show a node and the workspaces on it',
  permission: 'cluster:read',
  params: z.object({
    node: z
      .string()
      .min(1)
      .max(300)
      .describe('`name`, or `cluster~name` if several clusters have a node of that name'),
  }),
  reply: Node.extend({
    onNode: z.array(NodeWorkspace).describe('The workspaces, at most 1,000, by owner and name'),
  }),
});
