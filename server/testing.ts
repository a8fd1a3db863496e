import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Role } from '@cde/api/endpoint.ts';
import { type Scope, sessionKeyHeader } from '@cde/api/identity.ts';
import type { Relay } from '@cde/satellite/relay/relay.ts';
import type { FastifyInstance, InjectOptions } from 'fastify';
import { v7 } from 'uuid';
import { cloneDatabase, dropDatabase } from '../tests/kit/database.ts';
import { composeServer } from './compose.ts';
import { type Config, readConfig } from './config.ts';
import { type Database, openDatabase } from './database/pool.ts';
import { apiTokens, browserSessions, users } from './database/schema.ts';
import type { Bus } from './events/bus.ts';
import type { Keys } from './identity/keys.ts';
import { hashSecret, makeSecret } from './identity/secrets.ts';
import { sessionCookieName } from './identity/sessions/sessions.ts';
import { makeLog } from './log.ts';
import { listLocalNodes } from './providers/local/nodes.ts';
import type { Provider } from './providers/provider.ts';

export interface TestDatabase extends Database {
  drop(): Promise<void>;
}

/** A database for one test, with a pool. */
export async function makeTestDatabase(): Promise<TestDatabase> {
  const url = await cloneDatabase();
  const database = openDatabase(url, { max: 10 });
  return {
    ...database,
    async drop() {
      await database.close();
      await dropDatabase(url);
    },
  };
}

export interface TestUser {
  id: string;
  username: string;
  token: string;
}

export interface TestServer {
  app: FastifyInstance;
  config: Config;
  database: TestDatabase;
  keys: Keys;
  bus: Bus;
  relay: Relay;
  dataDir: string;
  /** The injected clock. Tests set `clock.at`. */
  clock: { at: Date };
  addUser(username: string, role?: Role, scopes?: Scope[]): Promise<TestUser>;
  /** Signs a browser in as the user. Returns the session's id and the headers that the dashboard sends. */
  addBrowser(userId: string): Promise<{ sessionId: string; headers: Record<string, string> }>;
  /** `inject` as a user, or without one, with a JSON body. */
  request(
    user: TestUser | null,
    method: InjectOptions['method'],
    url: string,
    body?: unknown,
    headers?: Record<string, string>,
  ): Promise<{ status: number; body: any; headers: Record<string, unknown> }>;
  close(): Promise<void>;
}

/** Inserts a user with a token into the database. */
export async function addUser(
  database: Database,
  username: string,
  role: Role = 'member',
  scopes: Scope[] = ['all'],
): Promise<TestUser> {
  const id = v7();
  const token = makeSecret('cde');
  await database.db
    .insert(users)
    .values({ id, username, name: username, email: `${username}@example.com`, role });
  await database.db.insert(apiTokens).values({
    id: v7(),
    tokenHash: hashSecret(token),
    userId: id,
    name: 'test',
    scopes,
    expiresAt: new Date(Date.now() + 365 * 24 * 3600_000),
  });
  return { id, username, token };
}

/** A provider without workspaces: these tests run no builds. */
const purgingProvider = {
  name: 'local',
  describeHome: () => ({}),
  purgeHomes: async ({ only }) => ({ purged: only ? [only] : [], incomplete: false }),
  onChange() {},
  nodes: async () => listLocalNodes(),
  async close() {},
} satisfies Partial<Provider> as unknown as Provider;

/** The whole server on its own database, without listener and background work. Close it in afterAll. */
export async function makeTestServer(
  env: Record<string, string> = {},
  providers: Provider[] = [purgingProvider],
): Promise<TestServer> {
  const database = await makeTestDatabase();
  const dataDir = await mkdtemp(join(tmpdir(), 'cde-data-'));
  const config = readConfig([], {
    CDE_DATA_DIR: dataDir,
    CDE_SECRET_KEY: 'a secret key for tests, 32 long.',
    ...env,
  });
  const clock = { at: new Date() };
  const app = await composeServer({
    config,
    database,
    log: makeLog('silent'),
    providers: new Map(providers.map((provider) => [provider.name, provider])),
    now: () => clock.at,
    sleep: async (ms) => {
      clock.at = new Date(clock.at.getTime() + ms);
    },
    checkReplies: true,
  });
  await app.ready();
  return {
    app,
    config,
    database,
    keys: app.keys,
    bus: app.bus,
    relay: app.relay,
    dataDir,
    clock,
    addUser: (username, role, scopes) => addUser(database, username, role, scopes),
    async addBrowser(userId) {
      const sessionId = v7();
      const [secret, sessionKey] = [makeSecret('cde_session'), makeSecret('cde_session_key')];
      await database.db.insert(browserSessions).values({
        id: sessionId,
        tokenHash: hashSecret(secret),
        keyHash: hashSecret(sessionKey),
        userId,
        createdAt: clock.at,
        expiresAt: new Date(clock.at.getTime() + 7 * 24 * 3600_000),
      });
      return {
        sessionId,
        headers: {
          cookie: `${sessionCookieName(config)}=${secret}`,
          [sessionKeyHeader]: sessionKey,
          origin: new URL(config.accessUrl).origin,
        },
      };
    },
    async request(user, method, url, body, headers = {}) {
      const reply = await app.inject({
        method: method!,
        url,
        headers: {
          ...(user && { authorization: `Bearer ${user.token}` }),
          ...(body !== undefined && { 'content-type': 'application/json' }),
          ...headers,
        },
        ...(body !== undefined && { payload: JSON.stringify(body) }),
      });
      return {
        status: reply.statusCode,
        body: reply.body === '' ? undefined : safeJson(reply.body),
        headers: reply.headers,
      };
    },
    async close() {
      await app.close();
      await database.drop();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}

function safeJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
