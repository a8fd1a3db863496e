import { type OidcFailure, oidcCallback, oidcFailures } from '@cde/api/identity.ts';
import { Problem } from '@cde/api/problem.ts';
import { and, eq, gt } from 'drizzle-orm';
import * as client from 'openid-client';
import type { Config } from '../config.ts';
import type { Database } from '../database/pool.ts';
import { oidcLogins } from '../database/schema.ts';
import { type OidcClaims, resolveOidcUser } from './oidc-users.ts';
import { hashSecret, makeSecret } from './secrets.ts';
import { type NewSession, type SignInRequest, startSession } from './sessions.ts';
import type { UserRow } from './users.ts';

/** Time to type a password, find a phone and confirm. */
const loginTtlMs = 10 * 60_000;
/** The provider's metadata is read again after this, so that a change of it needs no restart here. */
const metadataTtlMs = 3600_000;
const timeoutSeconds = 10;
const loopback = /^(localhost|127(\.\d+){3}|\[::1\])$/;

const makeOidcProblem = (reason: OidcFailure, cause?: unknown) =>
  new Problem('oidc-failed', oidcFailures[reason], { detail: reason, cause });

/** `returnTo` if it is a path of our own, else `/`: a link to us must not lead anywhere else. */
export function localPath(returnTo: string | undefined): string {
  if (!returnTo || !/^\/(?![/\\])[^\\\p{C}]*$/u.test(returnTo)) return '/';
  const base = 'http://localhost';
  if (!URL.canParse(returnTo, base)) return '/';
  const url = new URL(returnTo, base);
  return url.origin === base && !url.pathname.startsWith('//') ? url.pathname + url.search + url.hash : '/';
}

export interface Oidc {
  /**
   * Starts a sign-in: `url` of the provider, and the key that the page which started it keeps. `linkUserId`: whose account
   * the identity is linked to. Throws `oidc-failed`.
   */
  begin(options: {
    returnTo: string | undefined;
    linkUserId: string | null;
  }): Promise<{ url: string; loginKey: string; expiresAt: Date }>;
  /** Finishes it. `query`: what the provider sent the browser back with. Throws `oidc-failed`, `user-suspended`. */
  finish(options: {
    query: string;
    loginKey: string;
    request: SignInRequest;
  }): Promise<{ user: UserRow; returnTo: string } & NewSession>;
}

/** Sign-in by authorization code with PKCE, state and nonce. Throws `oidc-not-configured` when it is used without an issuer. */
export function makeOidc({
  config,
  database,
  now,
}: {
  config: Config;
  database: Database;
  now: () => Date;
}): Oidc {
  // Read when it is used: a server that listens on port 0 learns its address only then.
  const redirectUri = () => `${config.accessUrl}${oidcCallback.path}`;
  let cached: { at: number; provider: Promise<client.Configuration> } | undefined;

  function configured() {
    const { oidcIssuer, oidcClientId } = config;
    if (!oidcIssuer || !oidcClientId)
      throw new Problem('oidc-not-configured', 'Single sign-on is not set up here.', {
        hint: 'An administrator sets CDE_OIDC_ISSUER and CDE_OIDC_CLIENT_ID.',
      });
    return { oidcIssuer, oidcClientId };
  }

  // Lazily, so that a provider that is down does not keep the server from starting; a failure is not kept.
  function discover(): Promise<client.Configuration> {
    const { oidcIssuer, oidcClientId } = configured();
    const at = now().getTime();
    if (cached && at - cached.at < metadataTtlMs) return cached.provider;
    const issuer = new URL(oidcIssuer);
    const insecure = issuer.protocol === 'http:' && loopback.test(issuer.hostname);
    const provider = client.discovery(
      issuer,
      oidcClientId,
      { redirect_uris: [redirectUri()] },
      clientAuthentication(config.oidcClientSecret),
      { timeout: timeoutSeconds, ...(insecure && { execute: [client.allowInsecureRequests] }) },
    );
    const mine = { at, provider };
    cached = mine;
    provider.catch(() => {
      if (cached === mine) cached = undefined;
    });
    return provider;
  }

  // A login belongs to the page that started it: a state that another browser brings (a forged link, to sign a victim in to
  // the attacker's account) does not match. The key is in no cookie, which other ports of the host could read or plant.
  const stateHash = (state: string, loginKey: string) => hashSecret(`${state} ${loginKey}`);

  return {
    async begin({ returnTo, linkUserId }) {
      const provider = await discover().catch((error) => {
        throw toOidcProblem(error);
      });
      const loginKey = makeSecret('cde_oidc');
      const state = client.randomState();
      const nonce = client.randomNonce();
      const codeVerifier = client.randomPKCECodeVerifier();
      const expiresAt = new Date(now().getTime() + loginTtlMs);
      await database.db.insert(oidcLogins).values({
        stateHash: stateHash(state, loginKey),
        codeVerifier,
        nonce,
        returnTo: localPath(returnTo),
        expiresAt,
        linkUserId,
      });
      const url = client.buildAuthorizationUrl(provider, {
        redirect_uri: redirectUri(),
        scope: 'openid profile email',
        state,
        nonce,
        code_challenge: await client.calculatePKCECodeChallenge(codeVerifier),
        code_challenge_method: 'S256',
      });
      return { url: url.href, loginKey, expiresAt };
    },

    async finish({ query, loginKey, request }) {
      configured();
      const back = new URL(redirectUri());
      back.search = query;
      const state = back.searchParams.get('state') ?? '';
      const [login] = await database.db
        .delete(oidcLogins)
        .where(and(eq(oidcLogins.stateHash, stateHash(state, loginKey)), gt(oidcLogins.expiresAt, now())))
        .returning();
      if (!login) throw makeOidcProblem('expired');
      let claims: OidcClaims;
      try {
        claims = await exchange(await discover(), back, {
          expectedState: state,
          expectedNonce: login.nonce,
          pkceCodeVerifier: login.codeVerifier,
        });
      } catch (error) {
        throw toOidcProblem(error);
      }
      const context = { requestId: request.requestId, now: now() };
      const user = await resolveOidcUser(database, claims, { ...context, linkUserId: login.linkUserId });
      const session = await database.db.transaction((tx) =>
        startSession(tx, user, 'oidc', request, { now: now(), sessionDays: config.sessionDays }),
      );
      return { user, returnTo: login.returnTo, ...session };
    },
  };
}

/** The code for tokens, the id token checked, and what it leaves out from the userinfo endpoint. */
async function exchange(
  provider: client.Configuration,
  url: URL,
  checks: client.AuthorizationCodeGrantChecks,
): Promise<OidcClaims> {
  const tokens = await client.authorizationCodeGrant(provider, url, checks);
  const idToken = tokens.claims();
  if (!idToken) throw new client.ClientError('The provider sent no id token.');
  let claims: Record<string, unknown> = { ...idToken };
  // Many providers put only the subject into the id token.
  const isShort = claims.email === undefined || claims.preferred_username === undefined;
  if (isShort && provider.serverMetadata().userinfo_endpoint)
    claims = {
      ...(await client.fetchUserInfo(provider, tokens.access_token, idToken.sub)),
      ...claims,
    };
  const text = (name: string) => (typeof claims[name] === 'string' ? (claims[name] as string) : null);
  return {
    issuer: idToken.iss,
    subject: idToken.sub,
    username: text('preferred_username'),
    name: text('name'),
    email: text('email'),
    emailVerified: claims.email_verified === true,
  };
}

// What the provider says it takes; where it says nothing, the standard's default is basic.
function clientAuthentication(secret: string | undefined): client.ClientAuth {
  if (!secret) return client.None();
  const basic = client.ClientSecretBasic(secret);
  const post = client.ClientSecretPost(secret);
  return (server, ...rest) => {
    const supported = server.token_endpoint_auth_methods_supported;
    return (supported && !supported.includes('client_secret_basic') ? post : basic)(server, ...rest);
  };
}

function toOidcProblem(error: unknown): unknown {
  if (error instanceof Problem) return error;
  if (error instanceof client.AuthorizationResponseError) return makeOidcProblem('denied', error);
  const { code, message, cause } = error as { code?: string; message?: string; cause?: unknown };
  const isUnreachable =
    code === 'OAUTH_TIMEOUT' ||
    message === 'fetch failed' ||
    (cause instanceof Response && cause.status >= 500);
  return makeOidcProblem(isUnreachable ? 'unreachable' : 'rejected', error);
}
