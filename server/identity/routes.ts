import * as api from '@cde/api/identity.ts';
import { Problem } from '@cde/api/problem.ts';
import { fastifyCookie } from '@fastify/cookie';
import { eq } from 'drizzle-orm';
import type { FastifyInstance } from 'fastify';
import type { Config } from '../config.ts';
import type { Database } from '../database/pool.ts';
import { browserSessions, users } from '../database/schema.ts';
import type { Bus } from '../events/bus.ts';
import type { Actor } from '../http/actor.ts';
import { serve, serveAs } from '../http/serve.ts';
import { readAudit, writeAudit } from './audit/audit.ts';
import { type FailureAudit, makeFailureAudit } from './audit/failure-audit.ts';
import { authorize, grantFor } from './auth/authorize.ts';
import type { Keys } from './keys.ts';
import { makeOidc } from './oidc/oidc.ts';
import {
  clearSessionCookie,
  makeOneTimeLink,
  redeemOneTimeLink,
  setSessionCookie,
  startSession,
} from './sessions/sessions.ts';
import { insertToken, listTokens, revokeToken, toToken } from './sessions/tokens.ts';
import { userLimit, withAttemptLimit } from './sign-in/attempt-limit.ts';
import { approveCliLogin, collectCliLogin, findCliLogin, startCliLogin } from './sign-in/cli-login.ts';
import { type Devices, makeDevices } from './sign-in/devices.ts';
import { hashPassword } from './sign-in/passwords.ts';
import { changeOwnPassword, signInWithPassword } from './sign-in/sign-in.ts';
import { makeSignInThrottle } from './sign-in/sign-in-throttle.ts';
import {
  deleteUser,
  findUser,
  insertUser,
  listUsers,
  replacePassword,
  toUser,
  updateUser,
  userNotFound,
} from './users/users.ts';

interface Deps {
  config: Config;
  database: Database;
  keys: Pick<Keys, 'derive'>;
  bus: Pick<Bus, 'publishRevocation'>;
  now: () => Date;
  sleep: (ms: number) => Promise<void>;
}

interface SignInRouteDeps extends Deps {
  devices: Devices;
  failures: FailureAudit;
}

/** How often the CLI polls for the approval of its login: too short to notice, and logins are rare. */
const pollEveryMs = 1500;

/** Registers every endpoint of api/identity.ts. */
export function identityRoutes(app: FastifyInstance, deps: Deps): void {
  // Only for writing cookies. `auth` reads the session cookie itself, so that requests do not pay for parsing all of them.
  app.register(fastifyCookie, { hook: false });
  const devices = makeDevices(deps.keys.derive('sign-in devices'));
  const failures = makeFailureAudit({ ...deps, log: app.log });
  app.addHook('preClose', () => failures.close());
  signInRoutes(app, { ...deps, devices, failures });
  oidcRoutes(app, { ...deps, devices, failures });
  cliLoginRoutes(app, deps);
  userRoutes(app, deps);
  tokenRoutes(app, deps);
  serve(app, api.listAudit, ({ query }) => readAudit(deps.database, query));
}

/** Writes a failed sign-in without a username to the audit log, and rethrows the error. */
const recordFailure = async (
  failures: FailureAudit,
  how: 'one-time-link' | 'oidc',
  { requestId, ip }: { requestId: string; ip: string },
  error: unknown,
): Promise<never> => {
  if (error instanceof Problem && (error.code === 'link-invalid' || error.code === 'oidc-failed'))
    await failures.record({ action: 'sign-in.fail', how, user: null, name: '', ip, requestId });
  throw error;
};

function signInRoutes(app: FastifyInstance, deps: SignInRouteDeps): void {
  const { config, database, now, devices, failures } = deps;
  const pace = makeSignInThrottle(deps);
  const session = () => ({ now: now(), sessionDays: config.sessionDays });

  serveAs(app, api.getSignInMethods, async () => ({
    password: config.passwordLogin === 'on',
    oidc: config.oidcIssuer ? { name: config.oidcName } : null,
    needsOwner: (await database.db.$count(users)) === 0,
  }));

  serveAs(app, api.signIn, async ({ body, request, reply, requestId, ip }) => {
    if (config.passwordLogin === 'off')
      throw new Problem('sign-in-failed', 'Password sign-in is disabled on this server.', {
        hint: `Sign in with ${config.oidcName}.`,
      });
    const { user, ...made } = await signInWithPassword(
      { database, now, pace, devices, failures },
      body,
      { requestId, ip, userAgent: request.headers['user-agent'] },
      session(),
    );
    setSessionCookie(reply, config, made);
    return { ...toUser(user), sessionKey: made.sessionKey, device: devices.make(user.id) };
  });

  serveAs(app, api.signInOnce, async ({ body, request, reply, requestId, ip }) => {
    const from = { requestId, ip, userAgent: request.headers['user-agent'] };
    const { user, ...made } = await redeemOneTimeLink(database, body.code, from, session()).catch((error) =>
      recordFailure(failures, 'one-time-link', from, error),
    );
    setSessionCookie(reply, config, made);
    return { ...toUser(user), sessionKey: made.sessionKey, device: devices.make(user.id) };
  });

  serveAs(app, api.signOut, async ({ actor, reply, requestId, ip }) => {
    clearSessionCookie(reply, config);
    if (actor.kind !== 'user') return;
    const caller = { actor, requestId, ip };
    if (actor.via.kind === 'token') return revokeToken(database, caller, actor.via.id);
    await database.db.transaction(async (tx) => {
      await tx.delete(browserSessions).where(eq(browserSessions.id, actor.via.id));
      await writeAudit(tx, caller, {
        action: 'session.end',
        targetType: 'session',
        targetId: actor.via.id,
        targetName: actor.username,
      });
    });
  });

  serve(app, api.createOneTimeLink, async (caller) => {
    const { actor } = caller;
    return database.db.transaction(async (tx) => {
      const link = await makeOneTimeLink({ db: tx }, actor.userId, now);
      await writeAudit(tx, caller, {
        action: 'one-time-link.create',
        targetType: 'user',
        targetId: actor.userId,
        targetName: actor.username,
        after: { expiresAt: link.expiresAt.toISOString() },
      });
      return { url: `${config.accessUrl}${link.path}`, expiresAt: link.expiresAt.toISOString() };
    });
  });
}

function oidcRoutes(app: FastifyInstance, deps: SignInRouteDeps): void {
  const { config, devices, failures } = deps;
  const oidc = makeOidc(deps);

  serveAs(app, api.startOidc, async ({ actor, body }) => {
    if (body.link && actor.kind !== 'user') authorize(actor, 'signed-in');
    const linkUserId = body.link && actor.kind === 'user' ? actor.userId : null;
    const login = await oidc.begin({ returnTo: body.returnTo, linkUserId });
    return { ...login, expiresAt: login.expiresAt.toISOString() };
  });

  // Only redirects: any site can send a browser here, and only the sign-in page has the login key to finish. The code is
  // in the fragment, which browsers do not send, so that it does not appear in logs of proxies.
  serveAs(app, api.oidcCallback, async ({ request, reply }) => {
    const query = request.url.split('?').slice(1).join('?');
    await reply.redirect(`/sign-in#oidc=${encodeURIComponent(query)}`, 303);
  });

  serveAs(app, api.finishOidc, async ({ body, request, reply, requestId, ip }) => {
    const from = { requestId, ip, userAgent: request.headers['user-agent'] };
    const { user, returnTo, ...made } = await oidc.finish({ ...body, request: from }).catch((error) => {
      if (error instanceof Problem && error.code === 'oidc-failed')
        request.log.warn({ err: error.cause, reason: error.detail }, error.message);
      return recordFailure(failures, 'oidc', from, error);
    });
    setSessionCookie(reply, config, made);
    return { ...toUser(user), sessionKey: made.sessionKey, device: devices.make(user.id), returnTo };
  });
}

function cliLoginRoutes(app: FastifyInstance, { config, database, now }: Deps): void {
  const deps = { database, now };

  serveAs(app, api.startCliLogin, async ({ body, ip }) => {
    const login = await startCliLogin(deps, { hostname: body.hostname, ip });
    return {
      deviceCode: login.deviceCode,
      userCode: login.userCode,
      url: `${config.accessUrl}/cli-login?code=${login.userCode}`,
      expiresAt: login.expiresAt.toISOString(),
      pollEveryMs,
    };
  });
  serve(app, api.getCliLogin, async ({ actor, params }) => {
    const login = await withAttemptLimit(
      deps,
      userLimit('cli-code', actor.userId),
      ['cli-login-not-found'],
      () => findCliLogin(deps, params.userCode, actor.userId),
    );
    return { hostname: login.hostname, createdAt: login.createdAt.toISOString(), ip: login.ip };
  });
  serve(app, api.approveCliLogin, async (caller) => {
    await withAttemptLimit(deps, userLimit('cli-code', caller.actor.userId), ['cli-login-not-found'], () =>
      approveCliLogin(deps, caller, caller.params.userCode),
    );
  });
  serveAs(app, api.pollCliLogin, ({ body, requestId, ip }) =>
    collectCliLogin(deps, body.deviceCode, { requestId, ip }),
  );
}

/** The only user that the actor can see, or undefined if they can see all. */
const visibleUserId = (actor: Extract<Actor, { kind: 'user' }>) =>
  grantFor(actor, 'user:read') === 'any' ? undefined : actor.userId;

function userRoutes(app: FastifyInstance, { config, database, bus, now }: Deps): void {
  serve(app, api.getUser, async ({ actor, params }) => {
    const row = await findUser(database.db, params.user, actor);
    // Authorized before the 404, so that members cannot find out which usernames exist.
    authorize(actor, 'user:read', { ownerId: row?.id ?? '' });
    if (!row) throw userNotFound(params.user);
    if (params.user !== 'me') return toUser(row);
    const canUpdateForeign = config.foreignUpdates === 'on' && grantFor(actor, 'workspace:operate') === 'any';
    return { ...toUser(row), canUpdateForeign };
  });
  serve(app, api.listUsers, ({ actor, query }) =>
    listUsers(database, { ...query, only: visibleUserId(actor) }),
  );
  serve(app, api.createUser, async (caller) => {
    const { password, ...values } = caller.body;
    const passwordHash = password === undefined ? null : await hashPassword(password);
    const row = await database.db.transaction((tx) =>
      insertUser(tx, caller, { ...values, passwordHash, createdAt: now() }),
    );
    return toUser(row);
  });
  serve(app, api.updateUser, async (caller) => {
    const row = await updateUser(database, caller, caller.params.user, caller.body);
    if (row.status !== 'active') bus.publishRevocation(row.id);
    return toUser(row);
  });
  serve(app, api.deleteUser, async (caller) => {
    const id = await deleteUser(database, caller, caller.params.user, {
      homeGraceDays: config.homeGraceDays,
      now: now(),
    });
    bus.publishRevocation(id);
  });
  serve(app, api.setPassword, async (caller) => {
    const { actor, body, params, request, reply, requestId, ip } = caller;
    const user = await findUser(database.db, params.user, actor);
    if (user?.id !== actor.userId) {
      authorize(actor, 'user:write', { ownerId: user?.id ?? '' });
      if (!user) throw userNotFound(params.user);
      const passwordHash = await hashPassword(body.password);
      await database.db.transaction((tx) => replacePassword(tx, caller, user, passwordHash));
      return { sessionKey: null };
    }
    const passwordHash = await changeOwnPassword({ database, now }, user, body);
    const made = await database.db.transaction(async (tx) => {
      await replacePassword(tx, caller, user, passwordHash);
      // All sessions have ended; this browser gets a new one so that it stays signed in.
      if (actor.via.kind === 'token') return null;
      const from = { requestId, ip, userAgent: request.headers['user-agent'] };
      return startSession(tx, { ...user, passwordHash }, 'password-change', from, {
        now: now(),
        sessionDays: config.sessionDays,
      });
    });
    if (made) setSessionCookie(reply, config, made);
    return { sessionKey: made?.sessionKey ?? null };
  });
}

function tokenRoutes(app: FastifyInstance, { database, now }: Deps): void {
  serve(app, api.listTokens, ({ actor, query }) => listTokens(database, actor.userId, query));
  serve(app, api.createToken, async (caller) => {
    const { name, scopes, expiresInDays: days } = caller.body;
    const { secret, row } = await database.db.transaction((tx) =>
      insertToken(tx, caller, { name, scopes, days, now: now() }),
    );
    return { token: secret, info: toToken(row) };
  });
  serve(app, api.revokeToken, (caller) => revokeToken(database, caller, caller.params.token));
}
