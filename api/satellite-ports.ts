import { z } from 'zod';
import { endpoint } from './endpoint.ts';
import { ApiError } from './errors.ts';
import { boundedRecord, Id } from './names.ts';
import { TicketReply } from './workspaces.ts';

/** The head of a browser's request to a shared port at a satellite, for the server to authorize. */
const Head = z.object({
  method: z.string().max(20),
  url: z.string().max(32_768).describe('Path and query, unchanged'),
  headers: boundedRecord(z.string().max(100), z.string().max(16_384), 50).describe(
    'The headers that authorization needs, with lower-case names and without Authorization',
  ),
});

/** Called by a satellite before it forwards a request, and again while the request lasts. */
export const authorizePortVisit = endpoint({
  method: 'POST',
  path: '/api/v1/satellite/port-visits',
  tag: 'satellites',
  summary: 'Authorize a request of a browser to a shared port',
  permission: 'satellite',
  body: z.object({
    head: Head,
    clientKey: z
      .string()
      .max(200)
      .optional()
      .describe(
        'Ed25519 SubjectPublicKeyInfo, base64url. If given, the reply has a ticket for this key and this port',
      ),
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
      origin: z.string().describe('The origin of the port in the browser'),
      isPublic: z.boolean(),
      visitor: z
        .string()
        .max(100)
        .optional()
        .describe('Stable for a signed-in user and different at each satellite. Absent: nobody is signed in'),
      ticket: TicketReply.optional(),
    }),
  ]),
});
