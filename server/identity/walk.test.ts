import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { type Endpoint, permissions, type Role, roles } from '@cde/api/endpoint.ts';
import { endpoints as contract } from '@cde/api/testing.ts';
import { makeClientKey } from '@cde/tunnel/auth/keys.ts';
import { inArray, sql } from 'drizzle-orm';
import { v7 } from 'uuid';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { recordings } from '../database/diagnosis-schema.ts';
import { workspaceLeases } from '../database/idle-schema.ts';
import { apiTokens, builds, cliLogins, clusters, satellites, users, workspaces } from '../database/schema.ts';
import { defaultCleanupPolicy } from '../idle/settings.ts';
import { makeTestServer, type TestServer } from '../testing.ts';
import { grants } from './auth/authorize.ts';
import { hashSecret, makeSecret } from './secrets.ts';
import { makeOneTimeLink } from './sessions/sessions.ts';
import { hashPassword } from './sign-in/passwords.ts';

/** The callers. `read` and `connect` are an owner's tokens with that scope; the role alone would allow everything. */
const callers = [
  'anonymous',
  'member',
  'template-admin',
  'auditor',
  'owner',
  'read',
  'connect',
  'agent',
  'satellite',
  'suspended',
] as const;
type Caller = (typeof callers)[number];

// docs/roles.md route by route, written by hand so that authorize.ts is not tested against itself.
const anybody: Caller[] = callers.filter((caller) => caller !== 'suspended');
const people: Caller[] = ['member', 'template-admin', 'auditor', 'owner'];
const readers: Caller[] = ['template-admin', 'auditor', 'owner', 'read', 'connect'];
const owner: Caller[] = ['owner'];

interface Rule {
  /** Callers allowed on their own resource, or on routes without one. */
  own: Caller[];
  /** Callers allowed on other users' resources. Absent if the route's resource has no owner. */
  foreign?: Caller[];
}
const seeWorkspace: Rule = { own: [...people, 'read', 'connect'], foreign: readers };
const operateWorkspace: Rule = { own: people, foreign: owner };
const connectWorkspace: Rule = { own: [...people, 'connect'], foreign: [] };
const seeTemplates: Rule = { own: [...people, 'read', 'connect'] };
const writeTemplates: Rule = { own: ['template-admin', 'owner'] };
const forAgents: Rule = { own: ['agent'] };
const seeSatellites: Rule = { own: ['template-admin', 'auditor', 'owner', 'read'] };
const writeSatellites: Rule = { own: owner };
const ofSatellites: Rule = { own: ['satellite'] };
const seeClusters: Rule = seeSatellites;
const writeClusters: Rule = writeSatellites;
const seeCleanup: Rule = { own: ['template-admin', 'auditor', 'owner', 'read'] };
const v1 = '/api/v1';

const rules: Record<string, Rule> = {
  [`GET ${v1}/auth/methods`]: { own: anybody },
  [`POST ${v1}/auth/sign-in`]: { own: anybody },
  [`POST ${v1}/auth/one-time`]: { own: anybody },
  [`POST ${v1}/auth/sign-out`]: { own: anybody },
  [`POST ${v1}/auth/oidc/start`]: { own: anybody },
  [`POST ${v1}/auth/oidc/finish`]: { own: anybody },
  [`GET ${v1}/auth/oidc/callback`]: { own: anybody },
  [`POST ${v1}/auth/cli`]: { own: anybody },
  [`POST ${v1}/auth/cli/token`]: { own: anybody },
  [`POST ${v1}/auth/one-time-links`]: { own: people },
  [`GET ${v1}/auth/cli/:userCode`]: { own: people },
  [`POST ${v1}/auth/cli/:userCode/approve`]: { own: people },

  [`GET ${v1}/users`]: { own: [...people, 'read', 'connect'] },
  [`GET ${v1}/users/:user`]: {
    own: [...people, 'read', 'connect'],
    foreign: ['auditor', 'owner', 'read', 'connect'],
  },
  [`POST ${v1}/users`]: { own: owner },
  [`PATCH ${v1}/users/:user`]: { own: owner, foreign: owner },
  [`DELETE ${v1}/users/:user`]: { own: owner, foreign: owner },
  [`PUT ${v1}/users/:user/password`]: { own: people, foreign: owner },

  [`GET ${v1}/tokens`]: { own: people },
  [`POST ${v1}/tokens`]: { own: people },
  [`DELETE ${v1}/tokens/:token`]: { own: people, foreign: [] },
  [`GET ${v1}/audit`]: { own: ['auditor', 'owner', 'read'] },

  [`GET ${v1}/templates`]: seeTemplates,
  [`GET ${v1}/templates/:template`]: seeTemplates,
  [`GET ${v1}/templates/:template/versions`]: seeTemplates,
  [`GET ${v1}/templates/:template/versions/:number/files`]: writeTemplates,
  [`POST ${v1}/templates/validate`]: writeTemplates,
  [`POST ${v1}/templates`]: writeTemplates,
  [`POST ${v1}/templates/:template/versions/:number/activate`]: writeTemplates,
  [`DELETE ${v1}/templates/:template`]: writeTemplates,

  [`GET ${v1}/workspaces`]: { own: [...people, 'read', 'connect'] },
  [`POST ${v1}/workspaces`]: { own: people, foreign: owner },
  [`GET ${v1}/workspaces/:workspace`]: seeWorkspace,
  [`GET ${v1}/workspaces/:workspace/builds`]: seeWorkspace,
  [`GET ${v1}/workspaces/:workspace/stats`]: seeWorkspace,
  [`GET ${v1}/builds/:build`]: seeWorkspace,
  [`GET ${v1}/builds/:build/log`]: seeWorkspace,
  [`PATCH ${v1}/workspaces/:workspace`]: operateWorkspace,
  [`POST ${v1}/workspaces/:workspace/start`]: operateWorkspace,
  [`POST ${v1}/workspaces/:workspace/stop`]: operateWorkspace,
  [`POST ${v1}/workspaces/:workspace/restart`]: operateWorkspace,
  [`POST ${v1}/workspaces/:workspace/update`]: operateWorkspace,
  [`POST ${v1}/builds/:build/cancel`]: operateWorkspace,
  [`DELETE ${v1}/workspaces/:workspace`]: operateWorkspace,
  [`POST ${v1}/workspaces/:workspace/tickets`]: connectWorkspace,
  [`POST ${v1}/workspaces/:workspace/terminal-ways`]: connectWorkspace,

  [`GET ${v1}/workspaces/:workspace/activity`]: seeWorkspace,
  [`GET ${v1}/workspaces/:workspace/activity/events`]: seeWorkspace,
  [`PUT ${v1}/workspaces/:workspace/idle-policy`]: operateWorkspace,
  [`POST ${v1}/workspaces/:workspace/keep`]: operateWorkspace,
  [`POST ${v1}/workspaces/:workspace/leases`]: operateWorkspace,
  [`DELETE ${v1}/workspaces/:workspace/leases/:lease`]: operateWorkspace,
  [`GET ${v1}/cleanup/policy`]: seeCleanup,
  [`PUT ${v1}/cleanup/policy`]: { own: owner },
  [`GET ${v1}/cleanup/preview`]: seeCleanup,
  [`POST ${v1}/cleanup/release`]: { own: owner },
  [`GET ${v1}/cleanup/report`]: seeCleanup,

  [`POST ${v1}/workspaces/:workspace/recordings`]: connectWorkspace,
  [`GET ${v1}/incidents`]: { own: [...people, 'connect'] },
  [`GET ${v1}/sessions`]: { own: [...people, 'read'] },
  [`GET ${v1}/sessions/:session/windows`]: {
    own: [...people, 'read'],
    foreign: ['auditor', 'owner', 'read'],
  },
  [`GET ${v1}/health`]: { own: ['template-admin', 'auditor', 'owner', 'read'] },
  [`GET ${v1}/network`]: { own: [...people, 'read'] },

  [`GET ${v1}/workspaces/:workspace/ports`]: seeWorkspace,
  [`PUT ${v1}/workspaces/:workspace/ports/:port`]: { own: people, foreign: [] },
  [`DELETE ${v1}/workspaces/:workspace/ports/:port`]: operateWorkspace,

  [`POST ${v1}/port-visits`]: { own: people },

  [`POST ${v1}/netcheck`]: { own: [...people, 'connect'] },
  [`GET ${v1}/satellites`]: seeSatellites,
  [`GET ${v1}/satellites/:satellite`]: seeSatellites,
  [`POST ${v1}/satellites`]: writeSatellites,
  [`POST ${v1}/satellites/:satellite/drain`]: writeSatellites,
  [`PUT ${v1}/satellites/:satellite/web`]: writeSatellites,
  [`DELETE ${v1}/satellites/:satellite`]: writeSatellites,
  [`POST ${v1}/satellite/register`]: ofSatellites,
  [`POST ${v1}/satellite/heartbeat`]: ofSatellites,
  [`POST ${v1}/satellite/users`]: ofSatellites,
  [`POST ${v1}/satellite/port-visits`]: ofSatellites,
  [`POST ${v1}/satellite/terminals`]: ofSatellites,
  [`POST ${v1}/satellite/terminals/standing`]: ofSatellites,

  [`GET ${v1}/homes`]: seeTemplates,
  [`DELETE ${v1}/homes/:home`]: operateWorkspace,
  [`POST ${v1}/workspaces/:workspace/kube-credentials`]: connectWorkspace,
  [`GET ${v1}/workspaces/:workspace/builder`]: connectWorkspace,
  [`POST ${v1}/workspaces/:workspace/builder/credentials`]: connectWorkspace,
  [`GET ${v1}/clusters`]: seeClusters,
  [`GET ${v1}/clusters/:cluster`]: seeClusters,
  [`POST ${v1}/clusters`]: writeClusters,
  [`PATCH ${v1}/clusters/:cluster`]: writeClusters,
  [`DELETE ${v1}/clusters/:cluster`]: writeClusters,
  [`GET ${v1}/orphans`]: seeClusters,
  [`GET ${v1}/nodes`]: seeClusters,
  [`GET ${v1}/nodes/:node`]: seeClusters,
  [`POST ${v1}/orphans/clean`]: writeClusters,
  [`POST ${v1}/orphans/adopt`]: writeClusters,

  [`POST ${v1}/agent/register`]: forAgents,
  [`POST ${v1}/agent/boot`]: { own: anybody },
  [`POST ${v1}/agent/logs`]: forAgents,
  [`POST ${v1}/agent/startup`]: forAgents,
  [`POST ${v1}/agent/stats`]: forAgents,
  [`POST ${v1}/agent/conditions`]: forAgents,
  [`POST ${v1}/agent/leases`]: forAgents,
  [`DELETE ${v1}/agent/leases/:lease`]: forAgents,
  [`POST ${v1}/agent/shutdown/wait`]: forAgents,
  [`POST ${v1}/agent/shutdown`]: forAgents,
  [`POST ${v1}/agent/users`]: forAgents,
  [`POST ${v1}/agent/users/check`]: forAgents,
};

/** Routes outside the API contract that authorize themselves. An allowed WebSocket route replies 404 without an upgrade. */
const gatedRoutes: Record<string, Caller[]> = {
  'GET /metrics': ['auditor', 'owner', 'read'],
  [`GET ${v1}/agent/program/:version`]: ['agent'],
  [`GET ${v1}/events`]: [...people, 'read', 'connect'],
  [`GET ${v1}/workspaces/:workspace/terminal`]: [...people, 'connect'],
};
/** All other routes: public, or authenticated in another way. */
const openRoutes = [
  /^GET \/(healthz|readyz)$/,
  /^GET \/api\/v1\/openapi\.json$/,
  /^GET \/api\/docs(\/.*)?$/,
  // The relay and its throughput tests, authenticated by signed tickets, and its probe with an empty reply. Tested in
  // satellite/.
  /^(GET|HEAD) \/relay\/v1\/(listen|dial|probe|probe\/down)$/,
  /^POST \/relay\/v1\/probe\/up$/,
  // The dashboard's files, which are public.
  /^GET \/(\*|assets\/\*)?$/,
];

const password = 'the password of everybody';
let server: TestServer;
let passwordHash: string;
let templateId: string;
let versionId: string;
const files = { 'template.yaml': 'name: walk\nprovider: local\n' };
beforeAll(async () => {
  server = await makeTestServer();
  passwordHash = await hashPassword(password);
  const admin = await server.addUser('walk-owner', 'owner');
  const made = await server.request(admin, 'POST', `${v1}/templates`, { files });
  templateId = made.body.id;
  versionId = made.body.activeVersion.id;
});
afterAll(() => server.close());

/** A caller and another user, each with a token, a workspace and a build. */
interface World {
  authorization: string | null;
  mine: Things;
  theirs: Things;
  signInAs: string;
  linkCode: string;
  userCode: string;
  satellite: string;
  cluster: string;
}
interface Things {
  userId: string;
  username: string;
  tokenId: string;
  workspaceId: string;
  buildId: string;
  homeId: string;
  leaseId: string;
  recordingId: string;
}

let worlds = 0;
async function makeWorld(caller: Caller): Promise<World> {
  const { db } = server.database;
  const number = ++worlds;
  const at = server.clock.at;
  const make = (username: string): Things => ({
    userId: v7(),
    username,
    tokenId: v7(),
    workspaceId: v7(),
    buildId: v7(),
    homeId: v7(),
    leaseId: v7(),
    recordingId: v7(),
  });
  const mine = make(`mine-${number}`);
  const theirs = make(`theirs-${number}`);
  const scope = caller === 'read' || caller === 'connect' ? caller : 'all';
  const role = scope !== 'all' ? 'owner' : roles.includes(caller as Role) ? (caller as Role) : 'member';
  await db.insert(users).values([
    {
      id: mine.userId,
      username: mine.username,
      role,
      status: caller === 'suspended' ? 'suspended' : 'active',
    },
    { id: theirs.userId, username: theirs.username, role: 'member', passwordHash },
  ]);
  const expiresAt = new Date(at.getTime() + 3600_000);
  const secret = makeSecret('cde');
  const agentSecret = makeSecret('cde_agent');
  const token = (id: string, userId: string, hash: Buffer) => ({
    id,
    userId,
    tokenHash: hash,
    name: 'walk',
    scopes: [scope] as ('all' | 'read' | 'connect')[],
    expiresAt,
  });
  await db
    .insert(apiTokens)
    .values([
      token(v7(), mine.userId, hashSecret(secret)),
      token(mine.tokenId, mine.userId, hashSecret(makeSecret('cde'))),
      token(theirs.tokenId, theirs.userId, hashSecret(makeSecret('cde'))),
    ]);
  await db.insert(workspaces).values(
    [mine, theirs].map((things) => ({
      id: things.workspaceId,
      ownerId: things.userId,
      name: 'web',
      templateId,
      templateVersionId: versionId,
      provider: 'local',
      desired: 'running' as const,
      status: 'running' as const,
      agentBuildId: things.buildId,
      agentTlsKey: hashSecret(things.buildId).toString('base64url'),
      agentSshHostKey: 'ssh-ed25519 AAAA',
    })),
  );
  await db.insert(builds).values(
    [mine, theirs].map((things) => ({
      id: things.buildId,
      workspaceId: things.workspaceId,
      number: 1,
      transition: 'start' as const,
      status: 'succeeded' as const,
      templateVersionId: versionId,
      parameters: {},
      initiator: things.username,
      agentTokenHash: things === mine ? hashSecret(agentSecret) : null,
    })),
  );
  await db.insert(workspaceLeases).values(
    [mine, theirs].map((things) => ({
      id: things.leaseId,
      workspaceId: things.workspaceId,
      by: 'workspace',
      expiresAt,
    })),
  );
  await db
    .update(workspaces)
    .set({ currentBuildId: sql`agent_build_id` })
    .where(inArray(workspaces.id, [mine.workspaceId, theirs.workspaceId]));
  const satellite = `walk-${number}`;
  const satelliteSecret = makeSecret('cde_satellite');
  await db
    .insert(satellites)
    .values({ id: v7(), name: satellite, tokenHash: hashSecret(satelliteSecret), createdAt: at });
  const cluster = `walk-${number}`;
  await db.insert(clusters).values({ id: v7(), name: cluster, credentials: 'in-cluster', createdAt: at });
  await db.insert(workspaces).values(
    [mine, theirs].map((things) => ({
      id: things.homeId,
      ownerId: things.userId,
      name: 'gone',
      templateId,
      templateVersionId: versionId,
      provider: 'local',
      desired: 'deleted' as const,
      status: 'deleted' as const,
      homeKeptUntil: expiresAt,
    })),
  );
  await db.insert(recordings).values(
    [mine, theirs].map((things) => ({
      ...{ id: things.recordingId, workspaceId: things.workspaceId, userId: things.userId },
      ...{ clientVersion: '1', platform: 'linux', startedAt: at, knownUntil: at, lastWindowAt: at },
      ...{ lastBatch: 1, eventCount: 0 },
    })),
  );
  const userCode = `CCCC-${String(number).padStart(4, '0')}`;
  await db.insert(cliLogins).values({
    deviceCodeHash: hashSecret(makeSecret('cde_device')),
    userCode,
    hostname: 'walk',
    createdAt: at,
    expiresAt,
  });
  const link = await makeOneTimeLink(server.database, theirs.userId, () => at);
  const secrets: Partial<Record<Caller, string>> = { agent: agentSecret, satellite: satelliteSecret };
  return {
    authorization: caller === 'anonymous' ? null : `Bearer ${secrets[caller] ?? secret}`,
    mine,
    theirs,
    signInAs: theirs.username,
    linkCode: link.code,
    userCode,
    satellite,
    cluster,
  };
}

/** Valid bodies of the routes that need one. */
function bodyFor(route: string, world: World, things: Things, isForeign: boolean): unknown {
  const now = server.clock.at.toISOString();
  const bodies: Record<string, () => unknown> = {
    [`POST ${v1}/auth/sign-in`]: () => ({ username: world.signInAs, password }),
    [`POST ${v1}/auth/one-time`]: () => ({ code: world.linkCode }),
    [`POST ${v1}/auth/oidc/start`]: () => ({}),
    [`POST ${v1}/auth/oidc/finish`]: () => ({ query: 'state=unknown', loginKey: 'unknown' }),
    [`POST ${v1}/auth/cli`]: () => ({ hostname: 'walk' }),
    [`POST ${v1}/auth/cli/token`]: () => ({ deviceCode: 'unknown' }),
    [`POST ${v1}/users`]: () => ({ username: `new-${worlds}` }),
    [`PATCH ${v1}/users/:user`]: () => ({ name: 'Renamed' }),
    [`PUT ${v1}/users/:user/password`]: () => ({ password: 'a new password' }),
    [`POST ${v1}/tokens`]: () => ({ name: 'walk' }),
    [`POST ${v1}/templates/validate`]: () => ({ files }),
    [`POST ${v1}/templates`]: () => ({ files }),
    [`PATCH ${v1}/workspaces/:workspace`]: () => ({ name: 'renamed' }),
    [`POST ${v1}/workspaces`]: () => ({
      name: 'second',
      template: 'walk',
      ...(isForeign && { owner: things.username }),
    }),
    [`POST ${v1}/workspaces/:workspace/tickets`]: () => ({ clientKey: makeClientKey().publicKey }),
    [`PUT ${v1}/workspaces/:workspace/idle-policy`]: () => ({}),
    [`POST ${v1}/workspaces/:workspace/leases`]: () => ({ seconds: 60 }),
    [`PUT ${v1}/cleanup/policy`]: () => defaultCleanupPolicy,
    [`POST ${v1}/cleanup/release`]: () => ({}),
    [`POST ${v1}/agent/leases`]: () => ({ seconds: 60 }),
    [`POST ${v1}/agent/shutdown/wait`]: () => ({ waitMs: 0 }),
    [`POST ${v1}/agent/shutdown`]: () => ({
      id: things.buildId,
      state: 'ready',
      activity: { agentAgeMs: 1, signals: [] },
      exitCode: 0,
      timedOut: false,
    }),
    [`PUT ${v1}/workspaces/:workspace/ports/:port`]: () => ({ level: 'owner' }),
    [`POST ${v1}/port-visits`]: () => ({ to: '/' }),
    [`POST ${v1}/clusters`]: () => ({ name: `new-${worlds}`, inCluster: true }),
    [`PATCH ${v1}/clusters/:cluster`]: () => ({ region: 'eu' }),
    [`POST ${v1}/orphans/clean`]: () => ({}),
    [`POST ${v1}/orphans/adopt`]: () => ({ cluster: 'none', name: 'none' }),
    [`POST ${v1}/satellites`]: () => ({ name: `new-${worlds}` }),
    [`POST ${v1}/satellites/:satellite/drain`]: () => ({ draining: true }),
    [`PUT ${v1}/satellites/:satellite/web`]: () => ({ web: null }),
    [`POST ${v1}/satellite/register`]: () => ({ url: 'http://127.0.0.1:9', version: '1', hostname: 'walk' }),
    [`POST ${v1}/satellite/heartbeat`]: () => ({
      condition: 'serving',
      version: '1',
      load: { sessions: 0, agents: 0, bytesPerSecond: 0, memoryBytes: 1, loopDelayMs: 1 },
      users: [world.mine.userId],
    }),
    [`POST ${v1}/satellite/users`]: () => ({ users: [] }),
    [`POST ${v1}/satellite/port-visits`]: () => ({ head: { method: 'GET', url: '/', headers: {} } }),
    [`POST ${v1}/satellite/terminals`]: () => ({ code: '', clientKey: makeClientKey().publicKey }),
    [`POST ${v1}/satellite/terminals/standing`]: () => ({ admissions: [] }),
    [`POST ${v1}/agent/users`]: () => ({ users: [] }),
    [`POST ${v1}/agent/users/check`]: () => ({ users: [] }),
    [`POST ${v1}/agent/register`]: () => ({
      tlsPublicKey: hashSecret('a key').toString('base64url'),
      sshHostKey: `ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA${'A'.repeat(42)}`,
      version: '1',
      hostname: 'walk',
    }),
    [`POST ${v1}/agent/boot`]: () => ({ build: world.mine.buildId, secret: 'cde_boot_unknown' }),
    [`POST ${v1}/agent/logs`]: () => ({ process: 'walk', lines: [] }),
    [`POST ${v1}/agent/startup`]: () => ({ state: 'none' }),
    [`POST ${v1}/workspaces/:workspace/recordings`]: () => ({
      ...{ id: randomUUID(), batch: 1, startedAgoMs: 0, windows: [], events: [] },
      client: { version: '1', platform: 'linux' },
    }),
    [`POST ${v1}/agent/conditions`]: () => ({ process: 'p', batch: 1, windows: [] }),
    [`POST ${v1}/agent/stats`]: () => ({
      at: now,
      cpuPercent: 1,
      load1: 0,
      memoryUsedBytes: 1,
      memoryLimitBytes: null,
      homeUsedBytes: 1,
      homeTotalBytes: 1,
      openPorts: [],
      sessions: [],
    }),
  };
  return bodies[route]?.();
}

async function call(route: string, world: World, isForeign: boolean) {
  const [method, path] = route.split(' ') as ['GET', string];
  const things = isForeign ? world.theirs : world.mine;
  const values: Record<string, string> = {
    user: things.userId,
    token: things.tokenId,
    workspace: things.workspaceId,
    build: things.buildId,
    template: 'walk',
    number: '1',
    port: '8080',
    userCode: world.userCode,
    satellite: world.satellite,
    cluster: world.cluster,
    lease: things.leaseId,
    session: things.recordingId,
    home: things.homeId,
    node: hostname(),
  };
  const body = bodyFor(route, world, things, isForeign);
  const url = path.replace(/:(\w+)/g, (_, name: string) => values[name] ?? `missing-${name}`);
  const reply = await server.app.inject({
    method,
    url,
    headers: { ...(world.authorization && { authorization: world.authorization }) },
    ...(body !== undefined && { payload: body as object }),
  });
  return { status: reply.statusCode, text: reply.body.slice(0, 300) };
}

const unchanged = new Map<Caller, World>();
/** Calls a route in a new world, or in that of an earlier call which changed nothing: it only read, or was refused. */
async function callAs(caller: Caller, route: string, isForeign: boolean) {
  const world = unchanged.get(caller) ?? (await makeWorld(caller));
  const reply = await call(route, world, isForeign);
  if (route.startsWith('GET ') || [401, 403, 404].includes(reply.status)) unchanged.set(caller, world);
  else unchanged.delete(caller);
  return reply;
}

/** Whether the reply matches the rule. */
function judge(allowed: boolean, caller: Caller, isForeign: boolean, status: number): string | null {
  if (allowed) {
    if (status === 401 || status === 403) return 'refused, though allowed';
    // 409 means allowed, but in the wrong state. Accepting 404 would hide a wrong rejection.
    return status < 400 || status === 409 ? null : 'a failure';
  }
  if (caller === 'anonymous') return status === 401 ? null : 'not refused by 401';
  if (status === 403 || (isForeign && status === 404)) return null;
  return 'not refused';
}

const routeOf = (endpoint: Endpoint) => `${endpoint.method} ${endpoint.path}`;

describe('every route with every caller', () => {
  // Single sign-on is not configured here, which its two routes report.
  const notSetUp = new Set([
    `POST ${v1}/auth/oidc/start`,
    `POST ${v1}/auth/oidc/finish`,
    `POST ${v1}/orphans/adopt`,
  ]);

  test.each(contract.map(routeOf))('%s', async (route) => {
    const rule = rules[route];
    expect(rule, `${route} has no line in this test and docs/roles.md`).toBeDefined();
    const faults: string[] = [];
    for (const caller of callers)
      for (const isForeign of rule!.foreign ? [false, true] : [false]) {
        const { status, text } = await callAs(caller, route, isForeign);
        const allowed = (isForeign ? rule!.foreign! : rule!.own).includes(caller);
        if (allowed && notSetUp.has(route) && status === 404) continue;
        // Authorized, but then the server tries the credentials on a cluster that does not exist.
        if (allowed && route === `POST ${v1}/clusters` && status === 422) continue;
        // Authorized, but limited to browsers: the callers here have tokens.
        if (allowed && route === `POST ${v1}/port-visits` && status === 400) continue;
        const fault = judge(allowed, caller, isForeign, status);
        if (fault) faults.push(`${caller} on ${isForeign ? 'foreign' : 'own'}: ${fault}: ${status} ${text}`);
      }
    expect(faults).toEqual([]);
  });

  test.each(Object.entries(gatedRoutes))('%s', async (route, allowed) => {
    for (const caller of callers) {
      const { status } = await callAs(caller, route, false);
      const expected = allowed.includes(caller) ? [200, 404] : caller === 'anonymous' ? [401] : [403];
      expect(expected, caller).toContain(status);
    }
  });
});

test('all endpoints of the contract are registered, and every other route is listed here', () => {
  const served = server.app.endpoints.map(routeOf);
  expect(served.sort()).toEqual(contract.map(routeOf).sort());
  expect(Object.keys(rules).sort()).toEqual(served);
  const unknown = allRoutes().filter(
    (route) =>
      !served.includes(route) && !(route in gatedRoutes) && !openRoutes.some((open) => open.test(route)),
  );
  expect(unknown).toEqual([]);
  for (const route of Object.keys(gatedRoutes)) expect(allRoutes()).toContain(route);
});

/** `METHOD /path` of every route, read from Fastify's router tree; HEAD belongs to GET. */
function allRoutes(): string[] {
  const parents: string[] = [];
  return server.app
    .printRoutes({ commonPrefix: false })
    .split('\n')
    .filter((line) => line.trim() !== '')
    .flatMap((line) => {
      const found = /^((?:[│ ] {3})*)[├└]── (.*?) \(([A-Z, ]+)\)$/.exec(line);
      if (!found) throw new Error(`not a line of routes: ${JSON.stringify(line)}`);
      const [, indent = '', segment = '', methods = ''] = found;
      const depth = indent.length / 4;
      const path = (parents[depth - 1] ?? '') + segment;
      parents.length = depth;
      parents.push(path);
      return methods
        .split(', ')
        .filter((method) => method !== 'HEAD')
        .map((method) => `${method} ${path}`);
    });
}

test('docs/roles.md matches the grants', async () => {
  const text = await readFile(new URL('../../docs/roles.md', import.meta.url), 'utf8');
  const rows = [...text.matchAll(/^\| `([a-z:]+)`\s*\|(.*)\|$/gm)].filter((row) => row[1]!.includes(':'));
  const shown = rows.map(([, permission, cells]) => [
    permission,
    Object.fromEntries(
      roles.map((role, index) => [role, cells!.split('|')[index]!.trim().replace('–', 'none')]),
    ),
  ]);
  const granted = permissions
    .filter((permission) => !['public', 'signed-in', 'agent', 'satellite'].includes(permission))
    .map((permission) => [
      permission,
      Object.fromEntries(roles.map((role) => [role, grants[role][permission as 'token:own'] ?? 'none'])),
    ]);
  expect(Object.fromEntries(shown)).toEqual(Object.fromEntries(granted));
});
