import { z } from 'zod';
import { endpoint } from './endpoint.ts';
import { Moment, WorkspaceRef } from './names.ts';

/** Who may open a shared port by the web, from least to most: its owner, whoever is signed in, anybody. */
export const PortLevel = z.enum(['owner', 'signed-in', 'public']);
export type PortLevel = z.infer<typeof PortLevel>;

const portNumber = z.coerce.number().int().min(1).max(65535);

export const WorkspacePort = z.object({
  port: z.number().int(),
  listening: z.boolean().describe('As the agent last reported'),
  process: z.string().nullable().describe('The name of the process that listens'),
  level: PortLevel.nullable().describe('Whom it is shared with; null: nobody'),
  limitedTo: PortLevel.nullable().describe(
    "What counts of that by the server's --port-sharing; null: nothing",
  ),
  url: z.string().nullable().describe('Where a browser opens it; null while it is not shared'),
  elsewhere: z
    .array(z.object({ satellite: z.string(), region: z.string(), url: z.string() }))
    .describe('The same at the satellites that serve ports'),
});
export type WorkspacePort = z.infer<typeof WorkspacePort>;

export const WorkspacePorts = z.object({
  items: z.array(WorkspacePort),
  mostLevel: z.enum(['off', ...PortLevel.options]).describe("The server's --port-sharing"),
  by: z
    .enum(['name', 'path'])
    .describe('Whether a port has a name of its own, or is a path beside the dashboard'),
  reportedAt: Moment.nullable().describe('When the agent last said what listens'),
});
export type WorkspacePorts = z.infer<typeof WorkspacePorts>;

const tag = 'ports';
const params = z.object({ workspace: WorkspaceRef, port: portNumber });

export const listPorts = endpoint({
  method: 'GET',
  path: '/api/v1/workspaces/:workspace/ports',
  tag,
  summary: 'The ports that listen or are shared',
  permission: 'workspace:read',
  params: z.object({ workspace: WorkspaceRef }),
  reply: WorkspacePorts,
});
export const sharePort = endpoint({
  method: 'PUT',
  path: '/api/v1/workspaces/:workspace/ports/:port',
  tag,
  summary: 'Share a port of your own workspace, or change whom it is shared with',
  permission: 'workspace:operate',
  params,
  body: z.object({ level: PortLevel }),
  reply: WorkspacePort,
});
export const openPort = endpoint({
  method: 'POST',
  path: '/api/v1/port-visits',
  tag,
  summary: 'Open a shared port in the browser of this session: where it goes next',
  permission: 'signed-in',
  body: z
    .object({
      to: z.string().max(32_768).describe('By name, a path of the port; by path, the whole path'),
      host: z.string().max(255).optional().describe("By name: the port's own name"),
      state: z.string().max(100).optional().describe('By name: the hash of the cookie that it has set'),
    })
    .describe('As the query of /ports/open has it'),
  reply: z.object({ location: z.string() }),
});
export const unsharePort = endpoint({
  method: 'DELETE',
  path: '/api/v1/workspaces/:workspace/ports/:port',
  tag,
  summary: 'Share it with nobody any more',
  permission: 'workspace:operate',
  params,
});
