import { z } from 'zod';
import { endpoint, roles } from './endpoint.ts';
import { Id, Moment, PageQuery, page, Username } from './names.ts';

/**
 * The cookie of a browser that is signed in to the dashboard; over https its name starts with `__Host-`. Browsers send it
 * to every port of the host, so it is worth nothing without the session key.
 */
export const sessionCookie = 'cde_session';
/** The header of the session key, which the dashboard stores in its own origin. */
export const sessionKeyHeader = 'x-cde-session-key';
/** WebSockets of browsers cannot send headers: they offer this protocol, and a second one that carries the session key. */
export const socketProtocol = 'cde';
export const sessionKeyProtocol = 'cde-session-key.';

export const User = z.object({
  id: Id,
  username: Username,
  name: z.string(),
  email: z.string().nullable(),
  role: z.enum(roles),
  status: z.enum(['active', 'suspended']),
  createdAt: Moment,
  lastSeenAt: Moment.nullable(),
  canUpdateForeign: z
    .boolean()
    .optional()
    .describe(
      'Of `me`: whether you can choose the template version and parameters of workspaces of others (`--foreign-updates`)',
    ),
});
export type User = z.infer<typeof User>;

const SessionKey = z
  .string()
  .describe('Sent as `X-Cde-Session-Key` with every request that carries the session cookie; shown once');
/** The reply to a sign-in, which also sets the session cookie. */
export const SignedIn = User.extend({
  sessionKey: SessionKey,
  device: z
    .string()
    .describe(
      'Stored by this browser and sent with its next sign-ins, so that failed attempts of others do not slow them down',
    ),
});
export type SignedIn = z.infer<typeof SignedIn>;

/** What a token allows: everything that its user can do, only reading, or only connecting to workspaces. */
export const scopes = ['all', 'read', 'connect'] as const;
export type Scope = (typeof scopes)[number];

export const Token = z.object({
  id: Id,
  name: z.string(),
  scopes: z.array(z.enum(scopes)),
  createdAt: Moment,
  expiresAt: Moment,
  lastUsedAt: Moment.nullable(),
});
export type Token = z.infer<typeof Token>;
export const NewToken = z.object({ token: z.string().describe('Shown once: `cde_…`'), info: Token });

export const Password = z.string().min(10, 'at least 10 characters').max(200);

export const AuditRow = z.object({
  id: Id,
  at: Moment,
  actor: z.string().describe('A username, `agent` or `system`'),
  action: z.string().describe('workspace.create, user.update, …'),
  targetType: z.string(),
  targetId: z.string(),
  targetName: z.string(),
  before: z.unknown(),
  after: z.unknown(),
  requestId: z.string(),
  ip: z.string().nullable(),
});
export type AuditRow = z.infer<typeof AuditRow>;

const tag = 'identity';
const userParams = z.object({ user: z.string().max(80).describe('A username, an id, or `me`') });

export const getSignInMethods = endpoint({
  method: 'GET',
  path: '/api/v1/auth/methods',
  tag,
  summary: 'List the ways to sign in',
  permission: 'public',
  reply: z.object({
    password: z.boolean(),
    oidc: z.object({ name: z.string() }).nullable(),
    needsOwner: z.boolean().describe('No user exists yet'),
  }),
});
export const signIn = endpoint({
  method: 'POST',
  path: '/api/v1/auth/sign-in',
  tag,
  summary: 'Sign in with a password; sets the session cookie and returns the session key',
  permission: 'public',
  body: z.object({
    username: z.string().max(200),
    password: z.string().max(200),
    devices: z
      .array(z.string().max(200))
      .max(10)
      .default([])
      .describe('The `device` values of earlier sign-ins of this browser'),
  }),
  reply: SignedIn,
});
export const signInOnce = endpoint({
  method: 'POST',
  path: '/api/v1/auth/one-time',
  tag,
  summary: 'Sign in with the code of a one-time link; sets the session cookie and returns the session key',
  permission: 'public',
  body: z.object({ code: z.string().max(200) }),
  reply: SignedIn,
});
export const signOut = endpoint({
  method: 'POST',
  path: '/api/v1/auth/sign-out',
  tag,
  summary: 'End this browser session (or revoke this token). Without one, only the cookie is deleted',
  permission: 'public',
  body: z.object({}).optional(),
});
/** Why a sign-in through OIDC failed, with the text for the user. */
export const oidcFailures = {
  denied: 'The sign-in was cancelled, or the provider refused it.',
  expired: 'This sign-in took too long, was begun in another browser, or was finished already. Start again.',
  unreachable:
    'The server cannot reach the sign-in provider. Try again; if it stays, tell your administrator.',
  rejected:
    "The provider's answer did not pass the checks. Tell your administrator; the server's log says more.",
  'owner-not-linked':
    'An owner of this installation has your address, and owners are not recognised by their address. Sign in another way, then link single sign-on on your account page.',
  'linked-elsewhere': 'This identity of the provider belongs to another account here.',
} as const;
export type OidcFailure = keyof typeof oidcFailures;
export const startOidc = endpoint({
  method: 'POST',
  path: '/api/v1/auth/oidc/start',
  tag,
  summary:
    'Start a sign-in with OpenID Connect; returns where to send the browser and the key to finish with',
  permission: 'public',
  body: z.object({
    returnTo: z.string().max(2000).optional().describe('Where to go afterwards: a path of the dashboard'),
    link: z
      .boolean()
      .optional()
      .describe("Link the provider's identity to the account of the signed-in user instead"),
  }),
  reply: z.object({
    url: z.string(),
    loginKey: z.string().describe('Stored by the page that started the sign-in and needed to finish it'),
    expiresAt: Moment,
  }),
});
export const oidcCallback = endpoint({
  method: 'GET',
  path: '/api/v1/auth/oidc/callback',
  tag,
  summary: 'Redirect from the provider back to the sign-in page, which finishes the sign-in',
  permission: 'public',
  query: z.looseObject({ state: z.string().max(2000).optional() }),
  status: 302,
});
export const finishOidc = endpoint({
  method: 'POST',
  path: '/api/v1/auth/oidc/finish',
  tag,
  summary: 'Finish a sign-in with OpenID Connect; sets the session cookie and returns the session key',
  permission: 'public',
  body: z.object({
    query: z.string().max(8000).describe("The query of the provider's redirect"),
    loginKey: z.string().max(200),
  }),
  reply: SignedIn.extend({ returnTo: z.string() }),
});

export const createOneTimeLink = endpoint({
  method: 'POST',
  path: '/api/v1/auth/one-time-links',
  tag,
  summary: 'Create a link that signs this user in to a browser once, within 10 minutes',
  permission: 'signed-in',
  body: z.object({}).optional(),
  reply: z.object({ url: z.string(), expiresAt: Moment }),
});
export const startCliLogin = endpoint({
  method: 'POST',
  path: '/api/v1/auth/cli',
  tag,
  summary: 'Start a login of the CLI through the browser',
  permission: 'public',
  body: z.object({ hostname: z.string().max(200) }),
  reply: z.object({
    deviceCode: z.string(),
    userCode: z.string(),
    url: z.string(),
    expiresAt: Moment,
    pollEveryMs: z.number().int(),
  }),
});
export const getCliLogin = endpoint({
  method: 'GET',
  path: '/api/v1/auth/cli/:userCode',
  tag,
  summary: 'Show a pending login of the CLI',
  permission: 'signed-in',
  params: z.object({ userCode: z.string().max(20) }),
  reply: z.object({ hostname: z.string(), createdAt: Moment, ip: z.string().nullable() }),
});
export const approveCliLogin = endpoint({
  method: 'POST',
  path: '/api/v1/auth/cli/:userCode/approve',
  tag,
  summary: 'Approve a login of the CLI',
  permission: 'signed-in',
  params: z.object({ userCode: z.string().max(20) }),
  body: z.object({}).optional(),
});
export const pollCliLogin = endpoint({
  method: 'POST',
  path: '/api/v1/auth/cli/token',
  tag,
  summary: 'Collect the token once the login is approved',
  permission: 'public',
  body: z.object({ deviceCode: z.string().max(200) }),
  reply: z.object({
    status: z.enum(['pending', 'approved', 'expired']),
    token: z.string().nullable(),
    username: z.string().nullable(),
  }),
});

export const getUser = endpoint({
  method: 'GET',
  path: '/api/v1/users/:user',
  tag,
  summary: 'Show a user',
  permission: 'user:read',
  params: userParams,
  reply: User,
});
export const listUsers = endpoint({
  method: 'GET',
  path: '/api/v1/users',
  tag,
  summary: 'List users',
  permission: 'user:read',
  maxConcurrent: 16,
  query: PageQuery.extend({ search: z.string().max(80).optional() }),
  reply: page(User),
});
export const createUser = endpoint({
  method: 'POST',
  path: '/api/v1/users',
  tag,
  summary: 'Create a user',
  permission: 'user:write',
  body: z.object({
    username: Username,
    name: z.string().max(120).default(''),
    email: z.email().max(254).nullable().default(null),
    role: z.enum(roles).default('member'),
    password: Password.optional().describe('Without it, the user signs in by OIDC or a one-time link'),
  }),
  reply: User,
  status: 201,
  idempotent: true,
});
export const updateUser = endpoint({
  method: 'PATCH',
  path: '/api/v1/users/:user',
  tag,
  summary: "Change a user's role, status, name or email",
  permission: 'user:write',
  params: userParams,
  body: z.object({
    role: z.enum(roles).optional(),
    status: z.enum(['active', 'suspended']).optional(),
    name: z.string().max(120).optional(),
    email: z.email().max(254).nullable().optional(),
  }),
  reply: User,
});
export const setPassword = endpoint({
  method: 'PUT',
  path: '/api/v1/users/:user/password',
  tag,
  summary: 'Set a password (your own requires the current one); ends all browser sessions of the user',
  permission: 'signed-in',
  params: userParams,
  body: z.object({ current: z.string().max(200).optional(), password: Password }),
  reply: z.object({
    sessionKey: SessionKey.nullable().describe(
      'The key of the new session, for the browser that made the change',
    ),
  }),
});
export const deleteUser = endpoint({
  method: 'DELETE',
  path: '/api/v1/users/:user',
  tag,
  summary: 'Delete a user who has no workspaces',
  permission: 'user:write',
  params: userParams,
});

export const listTokens = endpoint({
  method: 'GET',
  path: '/api/v1/tokens',
  tag,
  summary: 'List your tokens',
  permission: 'token:own',
  query: PageQuery,
  reply: page(Token),
});
export const createToken = endpoint({
  method: 'POST',
  path: '/api/v1/tokens',
  tag,
  summary: 'Create a token',
  permission: 'token:own',
  body: z.object({
    name: z.string().min(1).max(80),
    scopes: z.array(z.enum(scopes)).min(1).max(scopes.length).default(['all']),
    expiresInDays: z.number().int().min(1).max(365).default(90),
  }),
  reply: NewToken,
  status: 201,
});
export const revokeToken = endpoint({
  method: 'DELETE',
  path: '/api/v1/tokens/:token',
  tag,
  summary: 'Revoke a token',
  permission: 'token:own',
  params: z.object({ token: Id }),
});

export const listAudit = endpoint({
  method: 'GET',
  path: '/api/v1/audit',
  tag,
  summary: 'Read the audit log, newest first',
  permission: 'audit:read',
  maxConcurrent: 8,
  query: PageQuery.extend({
    actor: z.string().max(80).optional(),
    action: z.string().max(80).optional(),
    target: z.string().max(120).optional(),
    since: Moment.optional(),
    until: Moment.optional(),
  }),
  reply: page(AuditRow),
});
