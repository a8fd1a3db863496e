import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { eq } from 'drizzle-orm';
import { Provider } from 'oidc-provider';
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { oidcIdentities, oidcLogins, users } from '../../database/schema.ts';
import { makeTestServer, type TestServer } from '../../testing.ts';
import { sweepIdentity } from '../sweep.ts';
import { localPath } from './oidc.ts';

/** The provider's accounts; tests add to them. */
const accounts = new Map<string, Record<string, unknown>>();
let http: Server;
let issuer: string;
let server: TestServer;

beforeAll(async () => {
  // The provider warns on the console that its sign-in pages are for development only.
  vi.spyOn(console, 'info').mockImplementation(() => {});
  vi.spyOn(console, 'warn').mockImplementation(() => {});
  http = createServer();
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
  issuer = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: 'cde',
        client_secret: 'the secret of the client',
        redirect_uris: ['http://127.0.0.1:7080/api/v1/auth/oidc/callback'],
      },
    ],
    cookies: { keys: ['a key of the test'] },
    claims: {
      openid: ['sub'],
      profile: ['name', 'preferred_username'],
      email: ['email', 'email_verified'],
    },
    pkce: { required: () => true },
    findAccount: (_context, id) => ({
      accountId: id,
      claims: async () => ({ sub: id, ...accounts.get(id) }),
    }),
  });
  http.on('request', provider.callback());
  server = await makeTestServer({
    CDE_OIDC_ISSUER: issuer,
    CDE_OIDC_CLIENT_ID: 'cde',
    CDE_OIDC_CLIENT_SECRET: 'the secret of the client',
    CDE_OIDC_NAME: 'Example SSO',
  });
});
afterAll(async () => {
  await server.close();
  http.closeAllConnections();
  await new Promise((resolve) => http.close(resolve));
});
beforeEach(() => accounts.clear());

/** A browser: the provider's cookies, and the dashboard's storage. */
function makeBrowser() {
  const jar = new Map<string, string>();
  const keep = (lines: string[]) => {
    for (const line of lines) {
      const [pair = ''] = line.split(';');
      const at = pair.indexOf('=');
      jar.set(pair.slice(0, at), pair.slice(at + 1));
    }
  };
  const cookies = () => [...jar].map(([name, value]) => `${name}=${value}`).join('; ');
  const loginKeys: string[] = [];
  let sessionKey = '';
  const asPage = () => ({
    cookie: cookies(),
    'x-cde-session-key': sessionKey,
    origin: server.config.accessUrl,
  });
  return {
    jar,
    asPage,
    /** Starts a sign-in as the sign-in page does. Returns the provider's URL. */
    async start(body: { returnTo?: string; link?: boolean } = {}): Promise<string> {
      const reply = await server.request(null, 'POST', '/api/v1/auth/oidc/start', body, asPage());
      expect(reply.status).toBe(200);
      loginKeys.push(reply.body.loginKey);
      return reply.body.url;
    },
    /** Follows the provider's redirect to the callback, then finishes as the sign-in page does, with its login keys. */
    async finish(
      back: string,
    ): Promise<{ status: number; returnTo?: string; code?: string; detail?: string }> {
      const redirect = await server.app.inject({
        url: back.replace(server.config.accessUrl, ''),
        headers: { cookie: cookies() },
      });
      expect(redirect.statusCode).toBe(303);
      expect(redirect.headers['set-cookie']).toBeUndefined();
      const hash = /^\/sign-in#(.*)$/.exec(String(redirect.headers.location))![1]!;
      const query = new URLSearchParams(hash).get('oidc')!;
      let reply!: Awaited<ReturnType<typeof server.request>>;
      for (const loginKey of loginKeys.length > 0 ? loginKeys : ['none']) {
        reply = await server.request(null, 'POST', '/api/v1/auth/oidc/finish', { query, loginKey });
        if (reply.body.detail !== 'expired') break;
      }
      if (reply.status === 200) {
        keep([reply.headers['set-cookie'] as string].flat());
        sessionKey = reply.body.sessionKey;
      }
      const { returnTo, code, detail } = reply.body;
      return { status: reply.status, ...(returnTo ? { returnTo } : { code, detail }) };
    },
    /** Requests a page of the provider. */
    async fetch(url: string, form?: Record<string, string>) {
      const reply = await fetch(new URL(url, issuer), {
        redirect: 'manual',
        headers: { cookie: cookies() },
        ...(form && { method: 'POST', body: new URLSearchParams(form) }),
      });
      keep(reply.headers.getSetCookie());
      return {
        status: reply.status,
        location: reply.headers.get('location') ?? '',
        body: await reply.text(),
      };
    },
    me: async () => (await server.request(null, 'GET', '/api/v1/users/me', undefined, asPage())).body,
  };
}
type Browser = ReturnType<typeof makeBrowser>;
const failed = (detail: string) => ({ status: 401, code: 'oidc-failed', detail });

/** Completes the provider's sign-in and consent pages. Returns the URL that it redirects to. */
async function signInAtProvider(browser: Browser, url: string, account: string): Promise<string> {
  let page = await browser.fetch(url);
  for (let step = 0; step < 10; step++) {
    if (page.location.startsWith(server.config.accessUrl)) return page.location;
    if (page.location) page = await browser.fetch(page.location);
    else {
      const action = /action="([^"]+)"/.exec(page.body)?.[1];
      const prompt = /name="prompt" value="([^"]+)"/.exec(page.body)?.[1];
      if (!action || !prompt) throw new Error(`unexpected page of the provider:\n${page.body}`);
      page = await browser.fetch(action, { prompt, login: account, password: 'any' });
    }
  }
  throw new Error('the provider never sent the browser back');
}

async function signIn(account: string, returnTo = '/', browser = makeBrowser()) {
  const back = await signInAtProvider(browser, await browser.start({ returnTo }), account);
  return { browser, back, end: await browser.finish(back) };
}

test('a new person becomes a member and returns, signed in, to the page they came from', async () => {
  accounts.set('s-1', {
    preferred_username: 'Ada.L',
    name: 'Ada L.',
    email: 'ada@corp.example',
    email_verified: true,
  });
  expect((await server.request(null, 'GET', '/api/v1/auth/methods')).body.oidc).toEqual({
    name: 'Example SSO',
  });
  const { browser, end } = await signIn('s-1', '/workspaces?owner=me#top');
  expect(end).toEqual({ status: 200, returnTo: '/workspaces?owner=me#top' });
  expect(await browser.me()).toMatchObject({
    username: 'ada-l',
    name: 'Ada L.',
    email: 'ada@corp.example',
    role: 'member',
  });
  const again = await signIn('s-1');
  expect(await again.browser.me()).toMatchObject({ username: 'ada-l' });
  expect(await server.database.db.$count(oidcIdentities)).toBe(1);
  const owner = await server.addUser('olaf', 'owner');
  const rows = (await server.request(owner, 'GET', '/api/v1/audit?target=ada-l')).body.items;
  expect(rows.map((row: any) => `${row.actor} ${row.action}`)).toEqual([
    'ada-l session.create',
    'ada-l session.create',
    'system user.link-oidc',
    'system user.create',
  ]);
});

test('the authorization request has PKCE, state and nonce, and the state is stored hashed', async () => {
  const query = new URL(await makeBrowser().start()).searchParams;
  expect(Object.fromEntries(query)).toMatchObject({
    code_challenge_method: 'S256',
    response_type: 'code',
    scope: 'openid profile email',
    redirect_uri: `${server.config.accessUrl}/api/v1/auth/oidc/callback`,
  });
  const rows = await server.database.db.select().from(oidcLogins);
  expect(JSON.stringify(rows)).not.toContain(query.get('state'));
});

test('an existing user is linked by a verified address, not by an unverified one', async () => {
  const user = await server.addUser('bea');
  accounts.set('s-unverified', {
    preferred_username: 'bea',
    email: 'bea@example.com',
    email_verified: false,
  });
  const stranger = await signIn('s-unverified');
  expect(await stranger.browser.me()).toMatchObject({ username: 'bea-2', email: null });
  accounts.set('s-verified', { preferred_username: 'bea', email: 'Bea@example.com', email_verified: true });
  const same = await signIn('s-verified');
  expect(await same.browser.me()).toMatchObject({ id: user.id, username: 'bea' });
  // The provider reassigned the address to another person, who must not get the account.
  accounts.set('s-heir', { email: 'bea@example.com', email_verified: true });
  const heir = await signIn('s-heir');
  expect(await heir.browser.me()).toMatchObject({ username: 'bea-3', email: null });
});

test('two people with the same name who sign in concurrently become two users', async () => {
  for (const id of ['s-x', 's-y']) accounts.set(id, { preferred_username: 'twin' });
  const both = await Promise.all([signIn('s-x'), signIn('s-y')]);
  const names = await Promise.all(both.map(async ({ browser }) => (await browser.me()).username));
  expect(names.sort()).toEqual(['twin', 'twin-2']);
});

test('a callback works once, in the browser that started it, within ten minutes', async () => {
  accounts.set('s-2', { preferred_username: 'cleo' });
  const { browser, back } = await signIn('s-2');
  expect(await browser.finish(back)).toEqual(failed('expired'));

  const mine = makeBrowser();
  const answer = await signInAtProvider(mine, await mine.start(), 's-2');
  // A program on another port can read and plant all cookies of the host, but the login key is not in a cookie.
  const victim = makeBrowser();
  for (const [name, value] of mine.jar) victim.jar.set(name, value);
  expect(await victim.finish(answer)).toEqual(failed('expired'));
  await victim.start();
  expect(await victim.finish(answer)).toEqual(failed('expired'));
  expect([...mine.jar.keys(), ...victim.jar.keys()].join()).not.toContain('cde_');
  // Another tab of the same browser does not interfere.
  await mine.start();
  const begin = server.clock.at;
  server.clock.at = new Date(begin.getTime() + 10 * 60_000);
  try {
    expect(await mine.finish(answer)).toEqual(failed('expired'));
    server.clock.at = begin;
    expect(await mine.finish(answer)).toEqual({ status: 200, returnTo: '/' });
    server.clock.at = new Date(begin.getTime() + 10 * 60_000);
    await sweepIdentity(server.database, () => server.clock.at);
    expect(await server.database.db.$count(oidcLogins)).toBe(0);
  } finally {
    server.clock.at = begin;
  }
});

test('a forged code, a denied consent and a suspended user give different errors', async () => {
  accounts.set('s-3', { preferred_username: 'dan' });
  const browser = makeBrowser();
  const answer = async (query: string) => {
    const state = new URL(await browser.start()).searchParams.get('state');
    return browser.finish(
      `/api/v1/auth/oidc/callback?${query}&iss=${encodeURIComponent(issuer)}&state=${state}`,
    );
  };
  expect(await answer('code=forged')).toEqual(failed('rejected'));
  expect(await answer('error=access_denied')).toEqual(failed('denied'));
  expect(await browser.finish('/api/v1/auth/oidc/callback')).toEqual(failed('expired'));
  await signIn('s-3');
  await server.database.db.update(users).set({ status: 'suspended' }).where(eq(users.username, 'dan'));
  expect((await signIn('s-3')).end).toMatchObject({ status: 403, code: 'user-suspended' });
});

test('look-alike addresses do not match', async () => {
  const user = await server.addUser('kim');
  const kelvin = '\u212a';
  expect(`${kelvin}im`.toLowerCase()).toBe('kim');
  const claims = [
    [`${kelvin}im@example.com`, 'in the name'],
    [`${kelvin.normalize('NFKC')}\u0131m@example.com`, 'a dotless i'],
    ['\uff4bim@example.com', 'a full-width k'],
    ['kim\u200b@example.com', 'a space of no width'],
    ['kim@ex\uff41mple.com', 'in the domain'],
    ['kim@example.com@evil.example', 'two domains'],
    [' kim@example.com', 'a space'],
  ] as const;
  for (const [index, [email, why]] of claims.entries()) {
    accounts.set(`s-looks-${index}`, { preferred_username: 'kim', email, email_verified: true });
    const { browser, end } = await signIn(`s-looks-${index}`);
    expect(end.status, why).toBe(200);
    const me = await browser.me();
    expect(me.id, why).not.toBe(user.id);
    expect(me.email, why).toBeNull();
  }
  accounts.set('s-kim', { email: 'KIM@EXAMPLE.com', email_verified: true });
  expect(await (await signIn('s-kim')).browser.me()).toMatchObject({ id: user.id });
});

test('a linked user is found only by issuer and subject', async () => {
  const user = await server.addUser('lou');
  await server.database.db
    .insert(oidcIdentities)
    .values({ issuer: 'https://old.example', subject: 'lou', userId: user.id });
  accounts.set('s-lou', { preferred_username: 'lou', email: 'lou@example.com', email_verified: true });
  expect(await (await signIn('s-lou')).browser.me()).toMatchObject({ username: 'lou-2', email: null });
});

test('an owner is not linked by address, but can link an identity while signed in', async () => {
  const owner = await server.addUser('odette', 'owner');
  accounts.set('s-owner', { email: 'odette@example.com', email_verified: true });
  expect((await signIn('s-owner')).end).toEqual(failed('owner-not-linked'));

  const browser = makeBrowser();
  const anonymous = await server.request(null, 'POST', '/api/v1/auth/oidc/start', { link: true });
  expect(anonymous).toMatchObject({ status: 401, body: { code: 'sign-in-required' } });
  const { headers } = await server.addBrowser(owner.id);
  const linked = await server.request(null, 'POST', '/api/v1/auth/oidc/start', { link: true }, headers);
  const back = await signInAtProvider(browser, linked.body.url, 's-owner');
  const done = await server.request(null, 'POST', '/api/v1/auth/oidc/finish', {
    query: new URL(back).search,
    loginKey: linked.body.loginKey,
  });
  expect(done).toMatchObject({ status: 200, body: { id: owner.id } });
  expect(await (await signIn('s-owner')).browser.me()).toMatchObject({ id: owner.id });

  // An identity belongs to only one account.
  const other = await server.addUser('otto', 'owner');
  const { headers: others } = await server.addBrowser(other.id);
  const again = await server.request(null, 'POST', '/api/v1/auth/oidc/start', { link: true }, others);
  const query = new URL(await signInAtProvider(makeBrowser(), again.body.url, 's-owner')).search;
  const refused = await server.request(null, 'POST', '/api/v1/auth/oidc/finish', {
    query,
    loginKey: again.body.loginKey,
  });
  expect(refused).toMatchObject({ status: 401, body: { detail: 'linked-elsewhere' } });
});

test('an unreachable provider and a missing configuration have their own errors', async () => {
  const away = await makeTestServer({ CDE_OIDC_ISSUER: 'http://127.0.0.1:1', CDE_OIDC_CLIENT_ID: 'cde' });
  const without = await makeTestServer();
  try {
    const start = await away.request(null, 'POST', '/api/v1/auth/oidc/start', {});
    expect(start).toMatchObject({ status: 401, body: { code: 'oidc-failed', detail: 'unreachable' } });
    const none = await without.request(null, 'POST', '/api/v1/auth/oidc/start', {});
    expect(none).toMatchObject({ status: 404, body: { code: 'oidc-not-configured' } });
  } finally {
    await Promise.all([away.close(), without.close()]);
  }
});

test('returnTo accepts only paths on this server', () => {
  for (const path of ['/', '/workspaces/ada/web?tab=log#end', '/a b']) expect(localPath(path)).toMatch(/^\//);
  for (const path of [
    undefined,
    '',
    'workspaces',
    '//evil.example',
    '/\\evil.example',
    '/\t/evil.example',
    '\\/evil.example',
    'https://evil.example',
    'javascript:alert(1)',
    '/x\\..\\..//evil.example',
    '/..//evil.example',
    '/./\n/evil.example',
  ])
    expect(localPath(path), path).toBe('/');
});
