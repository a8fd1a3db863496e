import { z } from 'zod';
import { endpoint } from './endpoint.ts';
import { TerminalSize } from './events.ts';
import { Moment, WorkspaceRef } from './names.ts';
import { TicketReply } from './workspaces.ts';

/** Signed by the server, and read by it alone. */
const Signed = z.string().max(2_000);

/** Where a satellite serves terminals: a WebSocket that only pages of the dashboard open. */
export const terminalPath = '/terminal';

/** Answers 204 to anybody, at the server and at satellites: to measure how far they are. */
export const probePath = '/relay/v1/probe';

/** By its name a shell is found again. */
export const TerminalName = z
  .string()
  .max(64)
  .regex(/^[A-Za-z0-9._-]{1,64}$/);

/**
 * What a browser says first at a satellite, as text, within ten seconds; from then on it is as at
 * the server. In a message, since addresses end up in logs.
 */
export const OpenTerminal = TerminalSize.extend({
  type: z.literal('open'),
  code: Signed,
  terminal: TerminalName.optional(),
});
export type OpenTerminal = z.infer<typeof OpenTerminal>;

const tag = 'satellites';
const agentRttMs = z.number().nullable().describe("The agent's round trip there, as last reported");

export const listTerminalRoutes = endpoint({
  method: 'POST',
  path: '/api/v1/workspaces/:workspace/terminal-ways',
  tag,
  summary: 'The satellites that may serve a terminal of the workspace to this browser',
  permission: 'workspace:connect',
  params: z.object({ workspace: WorkspaceRef }),
  reply: z.object({
    own: z.object({ agentRttMs }).describe("The server's own way, which there is always"),
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
      .describe('None unless it is a browser that asks: terminals there last as long as its session'),
  }),
});
export type TerminalRoutes = z.infer<NonNullable<typeof listTerminalRoutes.reply>>;

export const openSatelliteTerminal = endpoint({
  method: 'POST',
  path: '/api/v1/satellite/terminals',
  tag,
  summary: 'A ticket for the terminal of a browser that has shown its code',
  permission: 'satellite',
  body: z.object({
    code: Signed,
    clientKey: z.string().max(200).describe('Ed25519 public key (SPKI, base64url), made for this terminal'),
  }),
  reply: TicketReply.extend({
    admission: Signed.describe('To ask with whether it may go on'),
    admittedUntil: Moment.describe('The browser has to come anew then'),
  }),
});

export const checkSatelliteTerminals = endpoint({
  method: 'POST',
  path: '/api/v1/satellite/terminals/standing',
  tag,
  summary: 'Which of the terminals that are open at a satellite may be no longer',
  permission: 'satellite',
  body: z.object({ admissions: z.array(Signed).max(1_000) }),
  reply: z.object({
    web: z.boolean().describe('False: the satellite may serve no browsers any more'),
    ended: z.array(z.number().int()).describe('Indexes of those whose user may no longer'),
  }),
});
