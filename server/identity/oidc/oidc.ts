import { isLoopbackHost } from '@cde/api/addresses.ts';
import { type OidcFailure, oidcCallback, oidcFailures } from '@cde/api/identity.ts';
import { Problem } from '@cde/api/problem.ts';
import { and, eq, gt } from 'drizzle-orm';
import * as client from 'openid-client';
import type { Config } from '../../config.ts';
import type { Database } from '../../database/pool.ts';
import { oidcLogins } from '../../database/schema.ts';
import { hashSecret, makeSecret } from '../secrets.ts';
import { type NewSession, type SignInRequest, startSession } from '../sessions/sessions.ts';
import type { UserRow } from '../users/users.ts';
import { type OidcClaims, resolveOidcUser } from './oidc-users.ts';

/** Enough time to type a password, find a phone and confirm. */
const loginTtlMs = 10 * 60_000;
/** After this the provider's metadata is fetched again, so that changes do not require a restart. */
const metadataTtlMs = 3600_000;
const timeoutSeconds = 10;

const makeOidcProblem = (reason: OidcFailure, cause?: unknown) =>
  new Problem('oidc-failed', oidcFailures[reason], { detail: reason, cause });

/** `returnTo` if it is a path on this server, otherwise `/`: prevents open redirects. */
export function localPath(returnTo: string | undefined): string {
  if (!returnTo || !/^\/(?![/\\])[^\\\p{C}]*$/u.test(returnTo)) return '/';
  const base = 'http://localhost';
  if (!URL.canParse(returnTo, base)) return '/';
  const url = new URL(returnTo, base);
  return url.origin === base && !url.pathname.startsWith('//') ? url.pathname + url.search + url.hash : '/';
}

export interface Oidc {
  /**
   * Starts a sign-in. Returns the provider's URL, and a login key for the page that started it. `linkUserId` is the account
   * to link the identity to. Throws `oidc-failed`.
   */
  begin(options: {
    returnTo: string | undefined;
    linkUserId: string | null;
  }): Promise<{ url: string; loginKey: string; expiresAt: Date }>;
  /** Finishes a sign-in with the query that the provider redirected to. Throws `oidc-failed`, `user-suspended`. */
  finish(options: {
    query: string;
    loginKey: string;
    request: SignInRequest;
  }): Promise<{ user: UserRow; returnTo: string } & NewSession>;
}

/** Sign-in by authorization code with PKCE, state and nonce. Both methods throw `oidc-not-configured` without an issuer. */
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
      throw new Problem('oidc-not-configured', 'Single sign-on is not configured on this server.', {
        hint: 'Ask an administrator to set CDE_OIDC_ISSUER and CDE_OIDC_CLIENT_ID.',
      });
    return { oidcIssuer, oidcClientId };
  }

  // Lazy, so that the server starts while the provider is down. Failures are not cached.
  function discover(): Promise<client.Configuration> {
    const { oidcIssuer, oidcClientId } = configured();
    const at = now().getTime();
    if (cached && at - cached.at < metadataTtlMs) return cached.provider;
    const issuer = new URL(oidcIssuer);
    const insecure = issuer.protocol === 'http:' && isLoopbackHost(issuer.hostname);
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

  // Binds a login to the page that started it, so that a forged link cannot sign a victim in to the attacker's account.
  // The key is not in a cookie, because other ports of the host could read or plant one.
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

/** Exchanges the code for a verified id token, and fetches missing claims from the userinfo endpoint. */
async function exchange(
  provider: client.Configuration,
  url: URL,
  checks: client.AuthorizationCodeGrantChecks,
): Promise<OidcClaims> {
  const tokens = await client.authorizationCodeGrant(provider, url, checks);
  const idToken = tokens.claims();
  if (!idToken) throw new client.ClientError('The provider sent no id token.');
  let claims: Record<string, unknown> = { ...idToken };
  // Many providers include only the subject in the id token.
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

// Uses what the provider's metadata lists; the standard's default is basic.
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
