import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createPrivateKey,
  generateKeyPairSync,
  hkdfSync,
  type KeyObject,
  randomBytes,
  randomUUID,
} from 'node:crypto';
import { link, mkdir, open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { makeTicketSigner } from '@cde/tunnel/auth/ticket.ts';
import { eq } from 'drizzle-orm';
import type pg from 'pg';
import { secretKeyIssue } from '../config.ts';
import type { Database } from '../database/pool.ts';
import { serverKeys } from '../database/schema.ts';

/** The server's secrets, which all replicas share. */
export interface Keys {
  tickets: ReturnType<typeof makeTicketSigner>;
  /**
   * The agent token of a build. Derived instead of random, so that a build step that is repeated after a kill issues the
   * same token and the agent started by the first run stays valid.
   */
  agentToken(buildId: string): string;
  /** Derives a 32-byte key for one purpose. */
  derive(purpose: string): Buffer;
  seal(plain: Buffer): Buffer;
  open(sealed: Buffer): Buffer;
}

/** The secret key is missing or unusable; `program.ts` prints the message and hint. */
export class SecretKeyError extends Error {
  readonly hint: string;
  constructor(message: string, hint: string, cause?: unknown) {
    super(message, { cause });
    this.name = 'SecretKeyError';
    this.hint = hint;
  }
}

interface KeySource {
  dataDir: string;
  secretKey: string | undefined;
}

const keyFilePath = ({ dataDir }: KeySource) => join(dataDir, 'secret.key');

/** The content of the key file, or null if there is none. Throws SecretKeyError if the file is unusable. */
async function readKeyFile(source: KeySource): Promise<string | null> {
  const file = keyFilePath(source);
  let text: string;
  try {
    text = (await readFile(file, 'utf8')).trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new SecretKeyError(
      `The key file ${file} cannot be read: ${(error as Error).message}`,
      'Make it readable for the user that the server runs as. The server needs it to decrypt secrets in the database.',
      error,
    );
  }
  const fault = secretKeyIssue(text);
  if (fault !== null)
    throw new SecretKeyError(
      `The key file ${file} cannot be used: ${fault}.`,
      'Restore it from a backup, or set CDE_SECRET_KEY to the key that this server used before. If the server is new and has no data, delete the file.',
    );
  return text;
}

async function makeKeyFile(source: KeySource): Promise<void> {
  const file = keyFilePath(source);
  await mkdir(source.dataDir, { recursive: true });
  const draft = `${file}.${randomUUID()}`;
  const handle = await open(draft, 'wx', 0o600);
  try {
    await handle.writeFile(randomBytes(32).toString('base64url'));
    // Flushed before the rename and before anything is encrypted with it: a power cut leaves the whole key or none.
    await handle.sync();
  } finally {
    await handle.close();
  }
  // link() does not replace a file: if two servers start at once, the first one's key wins.
  await link(draft, file).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
  await rm(draft, { force: true });
  const folder = await open(source.dataDir, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/**
 * Throws SecretKeyError if the secret key is unusable, or missing although the database contains secrets encrypted with
 * it. Called before anything is written, including migrations.
 */
export async function checkSecretKey(pool: pg.Pool, source: KeySource): Promise<void> {
  if (source.secretKey !== undefined) return;
  // Read the database first: another starting server creates the file before the row.
  const { rows: table } = await pool.query<{ exists: boolean }>(
    "SELECT to_regclass('server_keys') IS NOT NULL AS exists",
  );
  const { rows: sealed } = table[0]!.exists
    ? await pool.query('SELECT FROM server_keys LIMIT 1')
    : { rows: [] };
  if ((await readKeyFile(source)) === null && sealed.length > 0)
    throw new SecretKeyError(
      `The database contains encrypted data, but the key file ${keyFilePath(source)} is missing. Nothing was changed.`,
      'Restore the file from a backup of the data directory (CDE_DATA_DIR selects a different one), or set CDE_SECRET_KEY to the key that the server used before. Without the key the data cannot be decrypted.',
    );
}

async function masterKey(pool: pg.Pool, source: KeySource): Promise<Buffer> {
  const hash = (text: string) => createHash('sha256').update(text).digest();
  if (source.secretKey !== undefined) return hash(source.secretKey);
  await checkSecretKey(pool, source);
  if ((await readKeyFile(source)) === null) await makeKeyFile(source);
  return hash((await readKeyFile(source))!);
}

/** Reads or creates the keys. Throws SecretKeyError if the database's keys were encrypted with another secret key. */
export async function loadKeys(
  database: Database,
  dataDir: string,
  secretKey: string | undefined,
): Promise<Keys> {
  const source = { dataDir, secretKey };
  const master = await masterKey(database.pool, source);
  const seal = (plain: Buffer) => {
    const nonce = randomBytes(12);
    const cipher = createCipheriv('aes-256-gcm', master, nonce);
    return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
  };
  const unseal = (sealed: Buffer) => {
    const decipher = createDecipheriv('aes-256-gcm', master, sealed.subarray(0, 12));
    decipher.setAuthTag(sealed.subarray(-16));
    return Buffer.concat([decipher.update(sealed.subarray(12, -16)), decipher.final()]);
  };

  const fresh = generateKeyPairSync('ed25519');
  const publicOf = (key: KeyObject) => key.export({ type: 'spki', format: 'der' }).toString('base64url');
  await database.db
    .insert(serverKeys)
    .values({
      name: 'ticket',
      sealed: seal(fresh.privateKey.export({ type: 'pkcs8', format: 'der' })),
      publicKey: publicOf(fresh.publicKey),
    })
    .onConflictDoNothing();
  const [row] = await database.db.select().from(serverKeys).where(eq(serverKeys.name, 'ticket'));
  let ticketKey: KeyObject;
  try {
    ticketKey = createPrivateKey({ key: unseal(row!.sealed), type: 'pkcs8', format: 'der' });
  } catch (cause) {
    throw new SecretKeyError(
      'The keys in the database were encrypted with a different secret key.',
      `Use the CDE_SECRET_KEY (or ${keyFilePath(source)}) of the server that created the database.`,
      cause,
    );
  }
  return {
    tickets: makeTicketSigner(ticketKey),
    agentToken: (buildId) =>
      `cde_agent_${createHmac('sha256', master).update(`agent token of build ${buildId}`).digest('base64url')}`,
    derive: (purpose) => Buffer.from(hkdfSync('sha256', master, '', `cde ${purpose}`, 32)),
    seal,
    open: unseal,
  };
}
