import { z } from 'zod';
import { endpoint } from './endpoint.ts';
import { Moment, WorkspaceRef } from './names.ts';

/** Who can open a shared port in a browser: its owner, any signed-in user, or everyone. */
export const PortLevel = z.enum(['owner', 'signed-in', 'public']);
export type PortLevel = z.infer<typeof PortLevel>;

const portNumber = z.coerce.number().int().min(1).max(65535);

export const WorkspacePort = z.object({
  port: z.number().int(),
  listening: z.boolean().describe('As the agent last reported'),
  process: z.string().nullable().describe('The name of the process that listens'),
  level: PortLevel.nullable().describe('Who it is shared with. Null: it is not shared'),
  limitedTo: PortLevel.nullable().describe("What the server's --port-sharing allows of that. Null: nothing"),
  url: z.string().nullable().describe('The URL to open in a browser. Null: it is not shared'),
  elsewhere: z
    .array(z.object({ satellite: z.string(), region: z.string(), url: z.string() }))
    .describe('Its URLs at the satellites that serve ports'),
});
export type WorkspacePort = z.infer<typeof WorkspacePort>;

export const WorkspacePorts = z.object({
  items: z.array(WorkspacePort),
  mostLevel: z.enum(['off', ...PortLevel.options]).describe("The server's --port-sharing"),
  by: z
    .enum(['name', 'path'])
    .describe(
      '`name`: each port has its own host name. `path`: ports are paths on the host of the dashboard',
    ),
  reportedAt: Moment.nullable().describe('When the agent last reported which ports listen'),
});
export type WorkspacePorts = z.infer<typeof WorkspacePorts>;

const tag = 'ports';
const params = z.object({ workspace: WorkspaceRef, port: portNumber });

export const listPorts = endpoint({
  method: 'GET',
  path: '/api/v1/workspaces/:workspace/ports',
  tag,
  summary: 'List the ports that listen or are shared',
  permission: 'workspace:read',
  params: z.object({ workspace: WorkspaceRef }),
  reply: WorkspacePorts,
});
export const sharePort = endpoint({
  method: 'PUT',
  path: '/api/v1/workspaces/:workspace/ports/:port',
  tag,
  summary: 'Share a port of your workspace, or change who it is shared with',
  permission: 'workspace:operate',
  params,
  body: z.object({ level: PortLevel }),
  reply: WorkspacePort,
});
export const openPort = endpoint({
  method: 'POST',
  path: '/api/v1/port-visits',
  tag,
  summary: 'Open a shared port in the browser of this session; returns where to redirect it',
  permission: 'signed-in',
  body: z
    .object({
      to: z.string().max(32_768).describe('With names, the path on the port. With paths, the whole path'),
      host: z.string().max(255).optional().describe('With names: the host name of the port'),
      state: z
        .string()
        .max(100)
        .optional()
        .describe('With names: the hash of the cookie that the port has set'),
    })
    .describe('The query of /ports/open'),
  reply: z.object({ location: z.string() }),
});
export const unsharePort = endpoint({
  method: 'DELETE',
  path: '/api/v1/workspaces/:workspace/ports/:port',
  tag,
  summary: 'Stop sharing a port',
  permission: 'workspace:operate',
  params,
});
