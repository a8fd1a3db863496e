import { z } from 'zod';
import { endpoint } from './endpoint.ts';
import { TerminalSize } from './events.ts';
import { Moment, WorkspaceRef } from './names.ts';
import { TicketReply } from './workspaces.ts';

/** Signed by the server and opaque to everyone else. */
const Signed = z.string().max(2_000);

/** The WebSocket at which a satellite serves terminals. Only pages of the dashboard may open it. */
export const terminalPath = '/terminal';

/** Answers 204 without authentication, at the server and at satellites: for measuring the distance to them. */
export const probePath = '/relay/v1/probe';

/** Reconnecting with the same name finds the same shell again. */
export const TerminalName = z
  .string()
  .max(64)
  .regex(/^[A-Za-z0-9._-]{1,64}$/);

/**
 * The first message of a browser to a satellite, as text, within ten seconds. After it the protocol is that of the
 * server. The code travels in a message because URLs end up in logs.
 */
export const OpenTerminal = TerminalSize.extend({
  type: z.literal('open'),
  code: Signed,
  terminal: TerminalName.optional(),
});
export type OpenTerminal = z.infer<typeof OpenTerminal>;

const tag = 'satellites';
const agentRttMs = z.number().nullable().describe("The agent's round-trip time to it, as last reported");

export const listTerminalRoutes = endpoint({
  method: 'POST',
  path: '/api/v1/workspaces/:workspace/terminal-ways',
  tag,
  summary: 'List the satellites that can serve a terminal of the workspace to this browser',
  permission: 'workspace:connect',
  params: z.object({ workspace: WorkspaceRef }),
  reply: z.object({
    own: z.object({ agentRttMs }).describe('Through the server, which is always possible'),
    satellites: z
      .array(
        z.object({
          name: z.string(),
          region: z.string(),
          url: z.string(),
          agentRttMs,
          code: Signed.describe('Opens terminals of this workspace at this satellite, for a minute'),
        }),
      )
      .describe(
        'Empty unless a browser session asks, because terminals at a satellite end with that session',
      ),
  }),
});
export type TerminalRoutes = z.infer<NonNullable<typeof listTerminalRoutes.reply>>;

export const openSatelliteTerminal = endpoint({
  method: 'POST',
  path: '/api/v1/satellite/terminals',
  tag,
  summary: 'Exchange the code of a browser for a ticket',
  permission: 'satellite',
  body: z.object({
    code: Signed,
    clientKey: z.string().max(200).describe('Ed25519 public key (SPKI, base64url), made for this terminal'),
  }),
  reply: TicketReply.extend({
    admission: Signed.describe('Presented to check whether the terminal may stay open'),
    admittedUntil: Moment.describe(
      'Until when the terminal may stay open; then the browser must open a new one',
    ),
  }),
});

export const checkSatelliteTerminals = endpoint({
  method: 'POST',
  path: '/api/v1/satellite/terminals/standing',
  tag,
  summary: 'Check which open terminals of a satellite must be closed',
  permission: 'satellite',
  body: z.object({ admissions: z.array(Signed).max(1_000) }),
  reply: z.object({
    web: z.boolean().describe('False: the satellite must stop serving browsers'),
    ended: z.array(z.number().int()).describe('Indexes of the terminals whose user has lost access'),
  }),
});
