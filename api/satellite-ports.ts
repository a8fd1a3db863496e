import { z } from 'zod';
import { endpoint } from './endpoint.ts';
import { ApiError } from './errors.ts';
import { boundedRecord, Id } from './names.ts';
import { TicketReply } from './workspaces.ts';

/** What the server judges of a request that a browser has sent to a port's name at a satellite. */
const Head = z.object({
  method: z.string().max(20),
  url: z.string().max(32_768).describe('As it came: path and query'),
  headers: boundedRecord(z.string().max(100), z.string().max(16_384), 50).describe(
    'Those that judging takes, by their names in lower case; no Authorization',
  ),
});

/** Asked by a satellite before it carries a request, and again for as long as that lasts. */
export const authorizePortVisit = endpoint({
  method: 'POST',
  path: '/api/v1/satellite/port-visits',
  tag: 'satellites',
  summary: 'May this visitor open this port?',
  permission: 'satellite',
  body: z.object({
    head: Head,
    clientKey: z
      .string()
      .max(200)
      .optional()
      .describe('Ed25519 SubjectPublicKeyInfo, base64url: with a ticket for this key, of this port alone'),
  }),
  reply: z.discriminatedUnion('kind', [
    z.object({ kind: z.literal('redirect'), location: z.string(), cookies: z.array(z.string()).optional() }),
    z.object({
      kind: z.literal('reply'),
      status: z.number().int(),
      headers: z.record(z.string(), z.string()),
    }),
    z.object({ kind: z.literal('refuse'), error: ApiError }),
    z.object({
      kind: z.literal('forward'),
      workspaceId: Id,
      port: z.number().int(),
      origin: z.string().describe('Of the port, as the browser has it'),
      isPublic: z.boolean(),
      visitor: z
        .string()
        .max(100)
        .optional()
        .describe(
          'The same for the same user who is signed in, and another at each satellite; absent: nobody',
        ),
      ticket: TicketReply.optional(),
    }),
  ]),
});
