import type { KeyObject } from 'node:crypto';
import { decodeProtectedHeader, errors, jwtVerify, SignJWT } from 'jose';
import { z } from 'zod';
import { TunnelError, type TunnelErrorCode } from '../errors.ts';
import { pathKinds } from '../pipe/path.ts';
import { exportPublicKey, fingerprint, importPublicKey } from './keys.ts';

/**
 * Tickets admit clients to satellites and agents, listen tokens admit agents to satellites, probe tokens let users
 * measure throughput. All are JWTs that the server signs with Ed25519, verified with its public keys without calling it.
 * Used by server, satellite and agent. Clients treat them as opaque strings, so the CLI loads none of this.
 */

const sha256 = z.string().regex(/^[A-Za-z0-9_-]{43}$/, 'SHA-256, base64url');

/** What a limited ticket may open: the agent's SSH server, or one port on the workspace's loopback. */
const OnlyTarget = z.string().regex(/^(ssh|tcp:localhost:\d{1,5})$/, 'ssh or tcp:localhost:PORT');

export const TicketClaims = z
  .object({
    // A separate kind, so that agents of earlier releases, which know no limits, refuse it.
    kind: z.enum(['client', 'limited']),
    workspaceId: z.uuid(),
    // Empty: satellites can read claims and need no names. Agents of earlier releases require the fields.
    workspace: z.string().max(80).default(''),
    userId: z.uuid(),
    username: z.string().max(80).default(''),
    agentKey: sha256.describe("Hash of the agent's TLS SubjectPublicKeyInfo"),
    clientKey: z.string().max(200).describe('Ed25519 SubjectPublicKeyInfo (DER), base64url'),
    satellites: z.array(z.string().max(200)).max(20).describe('Names of the satellites at which it is valid'),
    // Servers of earlier releases know only relays.
    paths: z
      .array(z.enum(pathKinds))
      .max(10)
      .default(['relay'])
      .describe('Kinds of path that may carry streams'),
    only: z
      .array(OnlyTarget)
      .min(1)
      .max(10)
      .optional()
      .describe(
        'Targets that a `limited` ticket may open, in the form of formatTarget; a `client` ticket may open all',
      ),
    jti: z.string().max(80),
    exp: z.number().int().describe('Seconds since 1970'),
  })
  .refine(
    ({ kind, only }) => (kind === 'limited') === (only !== undefined),
    'only limited tickets have `only`',
  );
export type TicketClaims = z.infer<typeof TicketClaims>;

export const ListenClaims = z.object({
  kind: z.literal('listen'),
  workspaceId: z.uuid(),
  buildId: z.uuid(),
  // Servers of earlier releases name none.
  satellite: z
    .string()
    .max(80)
    .optional()
    .describe('Id of the satellite that accepts it, `embedded` for those of the server'),
  exp: z.number().int().describe('Seconds since 1970'),
});
export type ListenClaims = z.infer<typeof ListenClaims>;

/** Lets a user measure a satellite's throughput; admits no sessions. */
export const ProbeClaims = z.object({
  kind: z.literal('probe'),
  userId: z.uuid(),
  exp: z.number().int().describe('Seconds since 1970'),
});
export type ProbeClaims = z.infer<typeof ProbeClaims>;

/**
 * Tolerated clock difference between server, satellite and agent, for machines without time synchronization. A client's
 * clock does not matter, because clients do not verify tickets.
 */
const clockToleranceSeconds = 30;

/**
 * Signs with the server's Ed25519 private key. The header's `kid` is the key's fingerprint, so that several keys can be
 * valid during a rotation.
 */
export function makeTicketSigner(privateKey: KeyObject): {
  /** The key as `ticketKeys` carries it (SPKI, base64url). */
  publicKey: string;
  signTicket(claims: Omit<z.input<typeof TicketClaims>, 'kind'>): Promise<string>;
  signListenToken(claims: Omit<ListenClaims, 'kind'>): Promise<string>;
  signProbeToken(claims: Omit<ProbeClaims, 'kind'>): Promise<string>;
} {
  if (privateKey.asymmetricKeyType !== 'ed25519')
    throw new TypeError('tickets are signed with an Ed25519 key');
  const publicKey = exportPublicKey(privateKey);
  const kid = fingerprint(Buffer.from(publicKey, 'base64url'));
  const sign = (claims: Record<string, unknown>) =>
    new SignJWT(claims).setProtectedHeader({ alg: 'EdDSA', kid }).sign(privateKey);
  return {
    publicKey,
    signTicket: (claims) => sign(TicketClaims.parse({ kind: claims.only ? 'limited' : 'client', ...claims })),
    signListenToken: (claims) => sign(ListenClaims.parse({ kind: 'listen', ...claims })),
    signProbeToken: (claims) => sign(ProbeClaims.parse({ kind: 'probe', ...claims })),
  };
}

/**
 * Verifies a client's ticket: signature, expiry, shape. `publicKeys` are SPKI, base64url. Rejects with TunnelError
 * `ticket-expired` or `ticket-invalid`.
 */
export function verifyTicket(
  token: string,
  publicKeys: readonly string[],
  now?: Date,
): Promise<TicketClaims> {
  return verify(token, publicKeys, TicketClaims, 'ticket-invalid', 'ticket-expired', now);
}

/** Names the server's embedded satellites in listen tokens. In tickets, those of further replicas are `embedded-HOST`. */
export const embeddedSatellite = 'embedded';

/**
 * Verifies a ticket that a client presents to a satellite, which the ticket must name. `satellite` is the satellite's
 * name; null before it has registered. A client's access URL leads to any replica of the server, so a ticket for one
 * embedded satellite is valid at each.
 */
export async function verifyDialTicket(
  token: string,
  publicKeys: readonly string[],
  satellite: string | null,
  now?: Date,
): Promise<TicketClaims> {
  const claims = await verifyTicket(token, publicKeys, now);
  const isNamed = claims.satellites.some(
    (name) =>
      name === satellite || (satellite === embeddedSatellite && name.startsWith(`${embeddedSatellite}-`)),
  );
  if (satellite !== null && !isNamed) throw new TunnelError('ticket-invalid', 'it is not for this satellite');
  return claims;
}

/**
 * Verifies an agent's listen token; rejects with `listen-token-expired` or `listen-token-invalid`. `satellite` is the id
 * of the satellite that verifies; null if a server of an earlier release did not tell it.
 */
export async function verifyListenToken(
  token: string,
  publicKeys: readonly string[],
  satellite: string | null,
  now?: Date,
): Promise<ListenClaims> {
  const claims = await verify(
    token,
    publicKeys,
    ListenClaims,
    'listen-token-invalid',
    'listen-token-expired',
    now,
  );
  if (satellite !== null && claims.satellite !== satellite)
    throw new TunnelError('listen-token-invalid', 'it is for another satellite');
  return claims;
}

/** Verifies a probe token like a ticket. */
export function verifyProbeToken(
  token: string,
  publicKeys: readonly string[],
  now?: Date,
): Promise<ProbeClaims> {
  return verify(token, publicKeys, ProbeClaims, 'ticket-invalid', 'ticket-expired', now);
}

const importedKeys = new Map<string, { kid: string; key: KeyObject }>();

function keyOf(spki: string): { kid: string; key: KeyObject } {
  let entry = importedKeys.get(spki);
  if (!entry) {
    const key = importPublicKey(spki);
    entry = { kid: fingerprint(key), key };
    // Keys change once in months; the bound is for tests that create thousands.
    if (importedKeys.size >= 100) importedKeys.clear();
    importedKeys.set(spki, entry);
  }
  return entry;
}

async function verify<T>(
  token: string,
  publicKeys: readonly string[],
  schema: z.ZodType<T>,
  invalid: TunnelErrorCode,
  expired: TunnelErrorCode,
  now: Date | undefined,
): Promise<T> {
  try {
    // Twice the size of a ticket with twenty satellites; anything longer is not worth hashing.
    if (token.length > 8192) throw new TunnelError(invalid, 'too long');
    const { kid } = decodeProtectedHeader(token);
    const entry = publicKeys.map(keyOf).find((candidate) => candidate.kid === kid);
    if (!entry) throw new TunnelError(invalid, 'signed by an unknown key');
    const { payload } = await jwtVerify(token, entry.key, {
      algorithms: ['EdDSA'],
      clockTolerance: clockToleranceSeconds,
      requiredClaims: ['exp'],
      ...(now && { currentDate: now }),
    });
    const claims = schema.safeParse(payload);
    if (!claims.success) throw new TunnelError(invalid, z.prettifyError(claims.error));
    return claims.data;
  } catch (error) {
    if (error instanceof TunnelError) throw error;
    if (error instanceof errors.JWTExpired) {
      const exp = error.payload.exp;
      throw new TunnelError(expired, exp ? `since ${new Date(exp * 1000).toISOString()}` : undefined);
    }
    throw new TunnelError(invalid, error instanceof Error ? error.message : undefined);
  }
}
