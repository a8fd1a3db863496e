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
} from 'node:crypto';
import { existsSync } from 'node:fs';
import { link, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { makeTicketSigner } from '@cde/tunnel/ticket.ts';
import { eq } from 'drizzle-orm';
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

async function masterKey(dataDir: string, secretKey: string | undefined): Promise<Buffer> {
  if (secretKey) return createHash('sha256').update(secretKey).digest();
  const file = join(dataDir, 'secret.key');
  if (!existsSync(file)) {
    await mkdir(dataDir, { recursive: true });
    const half = `${file}.${process.pid}`;
    await writeFile(half, randomBytes(32).toString('base64url'), { mode: 0o600 });
    // link() refuses to replace: of two servers that start at once, the first one's key stays.
    await link(half, file).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
    });
    await rm(half, { force: true });
  }
  return createHash('sha256')
    .update((await readFile(file, 'utf8')).trim())
    .digest();
}

/** Reads or makes the keys. Throws when the database's keys were sealed by another secret. */
export async function loadKeys(
  database: Database,
  dataDir: string,
  secretKey: string | undefined,
): Promise<Keys> {
  const master = await masterKey(dataDir, secretKey);
  const seal = (plain: Buffer) => {
    const nonce = randomBytes(12);
    const cipher = createCipheriv('aes-256-gcm', master, nonce);
    return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
  };
  const open = (sealed: Buffer) => {
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
    ticketKey = createPrivateKey({ key: open(row!.sealed), type: 'pkcs8', format: 'der' });
  } catch (cause) {
    throw new Error(
      `The keys in the database were sealed by another secret than this server has. Give it the CDE_SECRET_KEY (or ${join(dataDir, 'secret.key')}) that the first server had.`,
      { cause },
    );
  }
  return {
    tickets: makeTicketSigner(ticketKey),
    agentToken: (buildId) =>
      `cde_agent_${createHmac('sha256', master).update(`agent token of build ${buildId}`).digest('base64url')}`,
    derive: (purpose) => Buffer.from(hkdfSync('sha256', master, '', `cde ${purpose}`, 32)),
    seal,
    open,
  };
}
