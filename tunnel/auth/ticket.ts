import type { KeyObject } from 'node:crypto';
import { decodeProtectedHeader, errors, jwtVerify, SignJWT } from 'jose';
import { z } from 'zod';
import { TunnelError, type TunnelErrorCode } from '../errors.ts';
import { pathKinds } from '../pipe/path.ts';
import { exportPublicKey, fingerprint, importPublicKey } from './keys.ts';

/**
 * Tickets admit clients to satellites and agents, listen tokens admit agents to satellites. Both are JWTs
 * signed by the server with Ed25519, checked by its public keys without calling it. Imported by server,
 * satellite and agent. A third kind, of the same make, lets a user measure throughput; a client only carries the string, so the CLI loads none of this.
 */

const sha256 = z.string().regex(/^[A-Za-z0-9_-]{43}$/, 'SHA-256, base64url');

/** The streams that a limited ticket opens: the agent's SSH server, or one port on the workspace's loopback. */
const OnlyTarget = z.string().regex(/^(ssh|tcp:localhost:\d{1,5})$/, 'ssh or tcp:localhost:PORT');

export const TicketClaims = z
  .object({
    // Of a kind of its own: an agent of an older release, which knows no limits, refuses it.
    kind: z.enum(['client', 'limited']),
    workspaceId: z.uuid(),
    // Satellites read the claims, and need no names: a server leaves these empty. Agents of earlier releases want them.
    workspace: z.string().max(80).default(''),
    userId: z.uuid(),
    username: z.string().max(80).default(''),
    agentKey: sha256.describe("Of the agent's TLS SubjectPublicKeyInfo"),
    clientKey: z.string().max(200).describe('Ed25519 SubjectPublicKeyInfo (DER), base64url'),
    satellites: z.array(z.string().max(200)).max(20).describe('Names of the satellites that it is meant for'),
    // A server of an older release knows of relays only.
    paths: z.array(z.enum(pathKinds)).max(10).default(['relay']).describe('The kinds that may carry streams'),
    only: z
      .array(OnlyTarget)
      .min(1)
      .max(10)
      .optional()
      .describe('What a `limited` ticket opens, as formatTarget writes it; a `client` ticket opens all'),
    jti: z.string().max(80),
    exp: z.number().int().describe('Seconds since 1970'),
  })
  .refine(({ kind, only }) => (kind === 'limited') === (only !== undefined), 'limited is what has limits');
export type TicketClaims = z.infer<typeof TicketClaims>;

export const ListenClaims = z.object({
  kind: z.literal('listen'),
  workspaceId: z.uuid(),
  buildId: z.uuid(),
  // A server of an earlier release names none.
  satellite: z
    .string()
    .max(80)
    .optional()
    .describe(
      'The id of the satellite that it is for, `embedded` for those of the server; no other takes it',
    ),
  exp: z.number().int().describe('Seconds since 1970'),
});
export type ListenClaims = z.infer<typeof ListenClaims>;

/** Lets a user measure how much goes through a satellite; opens nothing. */
export const ProbeClaims = z.object({
  kind: z.literal('probe'),
  userId: z.uuid(),
  exp: z.number().int().describe('Seconds since 1970'),
});
export type ProbeClaims = z.infer<typeof ProbeClaims>;

/**
 * How far the clocks of server, satellite and agent may differ. A laptop's clock does not matter (only
 * servers judge tickets), so this covers machines without time service for a while.
 */
const clockToleranceSeconds = 30;

/**
 * Signs with the server's Ed25519 private key. The header's `kid` is the key's fingerprint, so that several
 * keys can be good at once while they are exchanged.
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
 * Checks a client's ticket: signature, expiry, shape. `publicKeys` are SPKI, base64url. Throws TunnelError
 * `ticket-expired` or `ticket-invalid`.
 */
export function verifyTicket(
  token: string,
  publicKeys: readonly string[],
  now?: Date,
): Promise<TicketClaims> {
  return verify(token, publicKeys, TicketClaims, 'ticket-invalid', 'ticket-expired', now);
}

/** The satellite that listen tokens name for all of the server's own. */
export const embeddedSatellite = 'embedded';

/**
 * As verifyTicket, of an agent's listen token: `listen-token-expired` or `listen-token-invalid`. `satellite` is the one
 * that asks; null if it does not know its id, from a server of an earlier release.
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

/** As verifyTicket, of a token for measuring. */
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
    // Keys come from the server and change once in months; the bound is for a test that makes thousands.
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
    // 8 KiB is twice a ticket with twenty satellites; anything longer is not ours and not worth hashing.
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
