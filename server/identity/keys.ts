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

/** The server's own secrets: one Ed25519 key that signs tickets, the same for all replicas. */
export interface Keys {
  tickets: ReturnType<typeof makeTicketSigner>;
  /**
   * The agent token of a build, derived rather than random: a step of a build that is repeated (after a
   * kill) hands out the same one, so the agent that its first run started stays welcome.
   */
  agentToken(buildId: string): string;
  /** A key of 32 bytes for one purpose, the same on all replicas. */
  derive(purpose: string): Buffer;
  seal(plain: Buffer): Buffer;
  open(sealed: Buffer): Buffer;
}

/** A secret key that cannot be used; `main.ts` prints it. */
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

/** The text of the key file; null where there is none. Throws SecretKeyError of a file that cannot be used. */
async function readKeyFile(source: KeySource): Promise<string | null> {
  const file = keyFilePath(source);
  let text: string;
  try {
    text = (await readFile(file, 'utf8')).trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new SecretKeyError(
      `The key file ${file} cannot be read: ${(error as Error).message}`,
      'Let the user that the server runs as read it. It is needed to open what the database has sealed.',
      error,
    );
  }
  const fault = secretKeyIssue(text);
  if (fault !== null)
    throw new SecretKeyError(
      `The key file ${file} cannot be used: ${fault}.`,
      'Restore it from a backup, or set CDE_SECRET_KEY to the key that this server had. For a server that is new and has nothing yet, remove the file.',
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
    // On the disk before anything is sealed with it, and under its name: a power cut leaves the whole key or none.
    await handle.sync();
  } finally {
    await handle.close();
  }
  // link() refuses to replace: of two servers that start at once, the first one's key stays.
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
 * Throws SecretKeyError where the secret key cannot be used, or is missing beside a database that has sealed something with
 * it. Called before anything is written, migrations included.
 */
export async function checkSecretKey(pool: pg.Pool, source: KeySource): Promise<void> {
  if (source.secretKey !== undefined) return;
  // The database first: another server may be making file and row at this moment, in that order.
  const { rows: table } = await pool.query<{ exists: boolean }>(
    "SELECT to_regclass('server_keys') IS NOT NULL AS exists",
  );
  const { rows: sealed } = table[0]!.exists
    ? await pool.query('SELECT FROM server_keys LIMIT 1')
    : { rows: [] };
  if ((await readKeyFile(source)) === null && sealed.length > 0)
    throw new SecretKeyError(
      `The database has data of a server, and its key file ${keyFilePath(source)} is missing. Nothing was changed.`,
      'Restore the file from a backup of the data directory (CDE_DATA_DIR names another one), or set CDE_SECRET_KEY to the key that the server had. Without it, what the database has sealed stays closed.',
    );
}

async function masterKey(pool: pg.Pool, source: KeySource): Promise<Buffer> {
  const hash = (text: string) => createHash('sha256').update(text).digest();
  if (source.secretKey !== undefined) return hash(source.secretKey);
  await checkSecretKey(pool, source);
  if ((await readKeyFile(source)) === null) await makeKeyFile(source);
  return hash((await readKeyFile(source))!);
}

/** Reads or makes the keys. Throws when the database's keys were sealed by another secret. */
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
      'The keys in the database were sealed by another secret than this server has.',
      `Give it the CDE_SECRET_KEY (or ${keyFilePath(source)}) that the first server had.`,
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
