import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Provider } from 'oidc-provider';
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { oidcIdentities, oidcLogins, users } from '../database/schema.ts';
import { makeTestServer, type TestServer } from '../testing.ts';
import { localPath } from './oidc.ts';
import { sweepIdentity } from './sweep.ts';

/** What the provider knows of its accounts; tests add to it. */
const accounts = new Map<string, Record<string, unknown>>();
let http: Server;
let issuer: string;
let server: TestServer;

beforeAll(async () => {
  // The provider tells on the console that its sign-in pages are for development, which is what this is.
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

/** A browser's cookies and redirects, enough of them. */
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
  return {
    jar,
    /** A page of ours: its status and where it leads. */
    async visit(url: string) {
      const reply = await server.app.inject({
        url: url.replace(server.config.accessUrl, ''),
        headers: { cookie: cookies() },
      });
      keep([reply.headers['set-cookie'] ?? []].flat());
      return { status: reply.statusCode, location: String(reply.headers.location ?? '') };
    },
    /** A page of the provider's. */
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
    me: async () =>
      (await server.request(null, 'GET', '/api/v1/users/me', undefined, { cookie: cookies() })).body,
  };
}
type Browser = ReturnType<typeof makeBrowser>;

/** Goes through the provider's sign-in and consent pages; resolves to the address that it sends the browser back to. */
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
  const start = await browser.visit(`/api/v1/auth/oidc/start?return_to=${encodeURIComponent(returnTo)}`);
  expect(start.status).toBe(302);
  const back = await signInAtProvider(browser, start.location, account);
  return { browser, back, end: await browser.visit(back) };
}

test('somebody new becomes a member and comes back signed in to where they were', async () => {
  accounts.set('s-1', {
    preferred_username: 'Ada.L',
    name: 'Ada L.',
    email: 'ada@corp.example',
    email_verified: true,
  });
  expect((await server.request(null, 'GET', '/api/v1/auth/methods')).body.oidc).toEqual({
    name: 'Example SSO',
    url: `${server.config.accessUrl}/api/v1/auth/oidc/start`,
  });
  const { browser, end } = await signIn('s-1', '/workspaces?owner=me#top');
  expect(end).toEqual({ status: 303, location: '/workspaces?owner=me#top' });
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

test('the request to the provider carries PKCE, a state and a nonce, none of them kept in the clear', async () => {
  const { location } = await makeBrowser().visit('/api/v1/auth/oidc/start');
  const query = new URL(location).searchParams;
  expect(Object.fromEntries(query)).toMatchObject({
    code_challenge_method: 'S256',
    response_type: 'code',
    scope: 'openid profile email',
    redirect_uri: `${server.config.accessUrl}/api/v1/auth/oidc/callback`,
  });
  const rows = await server.database.db.select().from(oidcLogins);
  expect(JSON.stringify(rows)).not.toContain(query.get('state'));
});

test('an existing user is linked by a verified address, never by an unverified one', async () => {
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
  // The address passed on to another person at the provider: the account does not.
  accounts.set('s-heir', { email: 'bea@example.com', email_verified: true });
  const heir = await signIn('s-heir');
  expect(await heir.browser.me()).toMatchObject({ username: 'bea-3', email: null });
});

test('two of one name who come at the same moment become two users', async () => {
  for (const id of ['s-x', 's-y']) accounts.set(id, { preferred_username: 'twin' });
  const both = await Promise.all([signIn('s-x'), signIn('s-y')]);
  const names = await Promise.all(both.map(async ({ browser }) => (await browser.me()).username));
  expect(names.sort()).toEqual(['twin', 'twin-2']);
});

test('an answer is good once, in the browser that asked, for ten minutes', async () => {
  accounts.set('s-2', { preferred_username: 'cleo' });
  const expired = { status: 303, location: '/sign-in?error=oidc-failed&reason=expired' };
  const { browser, back } = await signIn('s-2');
  expect(await browser.visit(back)).toEqual(expired);

  const mine = makeBrowser();
  const start = await mine.visit('/api/v1/auth/oidc/start');
  const answer = await signInAtProvider(mine, start.location, 's-2');
  const victim = makeBrowser();
  expect(await victim.visit(answer)).toEqual(expired);
  await victim.visit('/api/v1/auth/oidc/start');
  expect(await victim.visit(answer)).toEqual(expired);
  expect(victim.jar.has('cde_session')).toBe(false);
  // Another tab of the same browser does not disturb the first.
  await mine.visit('/api/v1/auth/oidc/start');
  const begin = server.clock.at;
  server.clock.at = new Date(begin.getTime() + 10 * 60_000);
  try {
    expect(await mine.visit(answer)).toEqual(expired);
    server.clock.at = begin;
    expect((await mine.visit(answer)).location).toBe('/');
    server.clock.at = new Date(begin.getTime() + 10 * 60_000);
    await sweepIdentity(server.database, () => server.clock.at);
    expect(await server.database.db.$count(oidcLogins)).toBe(0);
  } finally {
    server.clock.at = begin;
  }
});

test('a forged code, a refusal and a suspended user are told apart', async () => {
  accounts.set('s-3', { preferred_username: 'dan' });
  const browser = makeBrowser();
  const begin = async () => {
    const start = await browser.visit('/api/v1/auth/oidc/start');
    return new URL(start.location).searchParams.get('state');
  };
  const failed = (reason: string) => ({
    status: 303,
    location: `/sign-in?error=oidc-failed&reason=${reason}`,
  });
  const iss = encodeURIComponent(issuer);
  const forged = await browser.visit(
    `/api/v1/auth/oidc/callback?code=forged&iss=${iss}&state=${await begin()}`,
  );
  expect(forged).toEqual(failed('rejected'));
  const refused = await browser.visit(
    `/api/v1/auth/oidc/callback?error=access_denied&iss=${iss}&state=${await begin()}`,
  );
  expect(refused).toEqual(failed('denied'));
  expect(await browser.visit('/api/v1/auth/oidc/callback')).toEqual(failed('expired'));
  await signIn('s-3');
  await server.database.db.update(users).set({ status: 'suspended' });
  expect((await signIn('s-3')).end).toEqual(failed('suspended'));
});

test('a provider that is away, or none at all, is said so', async () => {
  const away = await makeTestServer({ CDE_OIDC_ISSUER: 'http://127.0.0.1:1', CDE_OIDC_CLIENT_ID: 'cde' });
  const without = await makeTestServer();
  try {
    const start = await away.app.inject('/api/v1/auth/oidc/start');
    expect(start.headers.location).toBe('/sign-in?error=oidc-failed&reason=unreachable');
    const none = await without.request(null, 'GET', '/api/v1/auth/oidc/start');
    expect(none).toMatchObject({ status: 404, body: { code: 'oidc-not-configured' } });
  } finally {
    await Promise.all([away.close(), without.close()]);
  }
});

test('one is sent back to paths of ours only', () => {
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
