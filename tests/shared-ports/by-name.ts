import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { WebSocket } from 'ws';
import { settled, until } from '../kit/until.ts';
import type { Ports } from './fixture.ts';
import { hostileProgram } from './hostile-program.ts';

/** Tests of ports with their own host names, at the server and at a satellite alike. They build on each other, in order. */
export function portsByName(ports: Ports): void {
  const {
    api,
    ask,
    byPath,
    cookieOf,
    cookies,
    dashboard,
    enter,
    openPort,
    port,
    portHost,
    program,
    send,
    sessionKeys,
    share,
    signIn,
    site,
    sitePort,
    token,
    where,
  } = ports;

  test('a port that is not shared cannot be opened with any credentials', async () => {
    expect((await send('/', { host: portHost() })).json()).toMatchObject({ code: 'sign-in-required' });
    expect((await enter(cookies.owner)).second).toMatchObject({ status: 404 });
    const bearer = { authorization: `Bearer ${token()}` };
    expect((await send('/', { host: portHost(), headers: bearer })).json()).toMatchObject({
      code: where === 'server' ? 'port-not-shared' : 'bad-request',
    });
    expect(program.seen).toEqual([]);
  });

  test('public: requests and responses pass unchanged except for our headers', async () => {
    await share('public');
    const got = await send('/some/path?q=%2e%2e', {
      host: portHost(),
      headers: {
        'x-forwarded-for': '6.6.6.6',
        'x-forwarded-host': 'evil',
        connection: 'close, x-mine',
        'x-mine': 'for the proxy',
        te: 'trailers',
        authorization: 'Basic b3duOnB3',
      },
      cookie: `app=1; ${cookies.owner}; cde_port=abc; other=2`,
    });
    expect(got.status).toBe(200);
    const { url, headers } = got.json();
    expect(url).toBe('/some/path?q=%2e%2e');
    const at = sitePort();
    expect(headers).toMatchObject({
      host: `localhost:${port()}`,
      'x-original-host': `${portHost()}:${at}`,
      'x-original-proto': 'http',
      'x-forwarded-for': '127.0.0.1',
      authorization: 'Basic b3duOnB3',
    });
    expect(headers.cookie.replaceAll(' ', '')).toBe('app=1;other=2');
    expect(headers).not.toHaveProperty('x-mine');
    expect(headers).not.toHaveProperty('x-forwarded-host');
    expect(headers).not.toHaveProperty('te');
    // A server accepts cde's tokens for shared ports; a satellite must not see them.
    const withToken = await send('/', { host: portHost(), headers: { authorization: `bearer  ${token()}` } });
    if (where === 'server') expect(withToken.json().headers).not.toHaveProperty('authorization');
    else
      expect(withToken).toMatchObject({
        status: 400,
        text: expect.stringContaining('must not be sent to a satellite'),
      });

    const body = Buffer.alloc(3 * 1024 * 1024, 'a');
    const framings: Record<string, string>[] = [
      { 'content-length': String(body.length) },
      { 'transfer-encoding': 'chunked' },
    ];
    for (const headers of framings) {
      const echo = await send('/echo', { host: portHost(), method: 'DELETE', body, headers });
      expect(echo.text.slice(0, 300)).toBe('a'.repeat(300));
      expect(echo.text.length).toBe(body.length);
    }
    const small = await send('/echo', { host: portHost(), method: 'PUT', body: Buffer.from('sent') });
    expect(small.text).toBe('sent');
    // Many small requests at once: headers and body leave together, and arrive unchanged.
    const many = await Promise.all(
      Array.from({ length: 200 }, (_, at) =>
        send('/echo', {
          host: portHost(),
          method: 'PUT',
          body: Buffer.from(`sent ${at}`),
          headers: { 'x-long': 'x'.repeat(at * 10) },
        }),
      ),
    );
    expect(many.map(({ text }) => text)).toEqual(many.map((_, at) => `sent ${at}`));
    // As browsers do: the body in a separate packet.
    const late = ask('/echo', {
      host: portHost(),
      method: 'PUT',
      headers: { 'content-length': '4' },
      later: 'late',
    });
    const [reply] = (await once(late, 'response')) as [IncomingMessage];
    expect(String((await once(reply, 'data'))[0])).toBe('late');
    const away = await send('/away', { host: portHost() });
    expect(away).toMatchObject({
      status: 302,
      headers: { location: `http://${portHost()}:${at}/here?x=1` },
    });
    // The program sees requests of its own pages as same-origin, and all others as cross-origin.
    const own = `http://${portHost()}:${at}`;
    const post = async (origin: string) =>
      (await send('/', { host: portHost(), method: 'POST', headers: { origin } })).json().headers.origin;
    expect(await post(own)).toBe(`http://localhost:${port()}`);
    expect(await post(own.replace('hello', 'other'))).toBe(own.replace('hello', 'other'));
    expect(await post('https://evil.example')).toBe('https://evil.example');
  });

  test('headers that a response cannot set are removed', async () => {
    const { headers } = await send('/headers', { host: portHost() });
    expect(headers['set-cookie']).toEqual(['app=1; Path=/']);
    for (const name of ['clear-site-data', 'x-accel-redirect', 'x-hop'])
      expect(headers).not.toHaveProperty(name);
    expect(headers).toMatchObject({ 'x-own': 'yes', 'cache-control': 'public, max-age=60' });
  });

  test('events are streamed, and a slow reader slows the program down', async () => {
    const events = ask('/events', { host: portHost() });
    const [reply] = (await once(events, 'response')) as [IncomingMessage];
    const [first] = await once(reply, 'data');
    expect(String(first)).toBe('data: first\n\n');
    events.destroy();

    const big = ask('/big', { host: portHost() });
    const [slow] = (await once(big, 'response')) as [IncomingMessage];
    slow.pause();
    expect(await settled(() => program.written)).toBeLessThan(40 * 1024 * 1024);
    let got = 0;
    slow.on('data', (piece: Buffer) => {
      got += piece.length;
    });
    slow.resume();
    await once(slow, 'end');
    expect(got).toBe(64 * 1024 * 1024);
  });

  test('WebSockets are forwarded, and their rejection too', async () => {
    const at = sitePort();
    const open = (path: string, host = portHost(), headers = {}) => {
      const socket = new WebSocket(`ws://127.0.0.1:${at}${path}`, {
        headers: { host: `${host}:${at}`, ...headers },
      });
      onTestFinished(() => socket.terminate());
      return socket;
    };
    const socket = open('/live', portHost(), { origin: `http://${portHost()}:${at}` });
    expect(String((await once(socket, 'message'))[0])).toBe('welcome');
    expect(program.last()).toMatchObject({
      method: 'UPGRADE',
      headers: { origin: `http://localhost:${port()}`, host: `localhost:${port()}` },
    });
    const data = Buffer.alloc(1024 * 1024, 'z');
    socket.send(data);
    expect((await once(socket, 'message'))[0]).toEqual(data);
    expect(String((await once(open('/no'), 'error'))[0])).toContain('403');
    expect(String((await once(open('/', portHost(1)), 'error'))[0])).toContain('401');
  });

  hostileProgram(ports);

  test('reaches a program that listens only on ::1', async () => {
    const only = createServer((_, response) => response.end('from ::1'));
    await once(only.listen(0, '::1'), 'listening');
    const at = (only.address() as AddressInfo).port;
    await share('public', at);
    const got = await send('/', { host: portHost(at) });
    expect(got).toMatchObject({ status: 200, text: 'from ::1' });
    await share(null, at);
    only.close();
  });

  test('reports a port without a listener, to browsers as a page', async () => {
    await share('public', 9);
    const host = portHost(9);
    expect(await send('/', { host })).toMatchObject({ status: 502 });
    const page = await send('/', { host, page: true });
    expect(page.headers['content-type']).toContain('text/html');
    expect(page.text).toContain('Nothing listens on port 9 of this workspace.');
    await share(null, 9);
  });

  test('owner: a code from the dashboard works once, in one browser, for one name', async () => {
    await share('owner');
    // A satellite caches the server's answer for two seconds.
    await until(
      () => send('/', { host: portHost() }),
      ({ status }) => status === 401,
    );
    const entered = await enter(cookies.owner, { path: '/deep?x=1' });
    const own = `http://${portHost()}:${sitePort()}`;
    expect(entered.third).toMatchObject({ status: 302, headers: { location: `${own}/deep?x=1` } });
    // A path with two slashes does not redirect to another host after the sign-in either.
    const slashes = await enter(cookies.owner, { path: '/.//evil.example/' });
    expect(slashes.third).toMatchObject({ headers: { location: `${own}//evil.example/` } });
    const seen = program.seen.length;
    const got = await send('/deep', {
      host: portHost(),
      page: true,
      cookie: `${entered.cookie}; ${cookies.owner}; a=b`,
    });
    expect(got).toMatchObject({ status: 200, headers: { 'content-type': 'application/json' } });
    expect(got.json().headers.cookie.trim()).toBe('a=b');
    expect(got.headers['cache-control']).toBe('private');
    expect(JSON.stringify(program.seen)).not.toContain('cde_session');

    // The same code again, another user's code in this browser, invented codes, and another host name.
    const { back } = entered;
    const again = (cookie: string, host = portHost(), query = back!.search) =>
      send(`${back!.pathname}${query}`, { host, page: true, cookie });
    expect((await again(entered.state)).text).toContain('port-sign-in-failed');
    const fresh = await enterUntilCode(cookies.owner);
    expect((await again('', portHost(), fresh.search)).text).toContain('port-sign-in-failed');
    expect((await again(fresh.state, portHost(), fresh.search)).text).toContain('port-sign-in-failed');
    const other = await enterUntilCode(cookies.owner);
    expect((await again(other.state, `1${portHost()}`, other.search)).status).not.toBe(302);
    expect((await again(entered.state, portHost(), '?code=cde_port_x&to=/')).status).toBe(401);
    // The dashboard's cookie itself, a forged cookie, and one for another host name.
    for (const cookie of [
      cookies.owner,
      cookies.owner.replace('cde_session', 'cde_port'),
      `${entered.cookie}x`,
    ])
      expect(await send('/', { host: portHost(), cookie })).toMatchObject({ status: 401 });
    await share('owner', 9);
    expect(await send('/', { host: portHost(9), cookie: entered.cookie })).toMatchObject({
      status: 401,
    });
    await share(null, 9);
    // Another user, and another user's token.
    expect((await enter(cookies.member)).second).toMatchObject({ status: 404 });
    expect(program.seen.slice(seen).map(({ url }) => url)).toEqual(['/deep']);
    // Never to another URL than the port's.
    const elsewhere = new URL(
      (await send('//evil.example/x', { host: portHost(), page: true })).headers.location!,
    );
    expect(elsewhere.origin).toBe(dashboard());
    const opened = await openPort(cookies.owner, elsewhere.search);
    expect(new URL(opened.json().location).hostname).toBe(portHost());
    expect((await openPort(cookies.owner, 'host=evil.example&to=/&state=x')).status).toBe(404);
    // A program on another port of the dashboard's host gets its cookie, but not the session key.
    sessionKeys.set(`${cookies.owner}; a=b`, cookies.owner);
    expect((await openPort(`${cookies.owner}; a=b`, elsewhere.search)).status).toBe(401);
  });

  test('rejects requests with the cookie from other origins, except other ports of the workspace', async () => {
    const { cookie } = await enter(cookies.owner);
    const at = sitePort();
    const from = (headers: Record<string, string>, method = 'POST') =>
      send('/act', { host: portHost(), method, cookie, headers });
    const evil = { origin: `http://1--evil--ada${site().suffix}:${at}`, 'sec-fetch-site': 'same-site' };
    expect(await from(evil)).toMatchObject({ status: 403 });
    expect(await from({ origin: 'null', 'sec-fetch-site': 'cross-site' })).toMatchObject({ status: 403 });
    expect(
      await from(
        { 'sec-fetch-site': 'same-site', 'sec-fetch-dest': 'image', 'sec-fetch-mode': 'no-cors' },
        'GET',
      ),
    ).toMatchObject({ status: 403 });
    const sibling = `http://${portHost(9)}:${at}`;
    expect(await from({ origin: sibling, 'sec-fetch-site': 'same-site' })).toMatchObject({ status: 200 });
    const asked = { origin: sibling, 'access-control-request-method': 'PUT' };
    expect(await send('/act', { host: portHost(), method: 'OPTIONS', headers: asked })).toMatchObject({
      status: 204,
      headers: { 'access-control-allow-origin': sibling },
    });
    expect(
      await from({ origin: `http://${portHost()}:${at}`, 'sec-fetch-site': 'same-origin' }),
    ).toMatchObject({
      status: 200,
    });
  });

  test('every host name under the wildcard is a port or nothing, and never the dashboard', async () => {
    for (const host of [
      `evil${site().suffix}`,
      `x--hello--owner${site().suffix}`,
      `0--hello--owner${site().suffix}`,
      `99999--a--b${site().suffix}`,
    ])
      for (const path of ['/', '/api/v1/auth/methods', '/healthz', '/relay/v1/probe'])
        expect(await send(path, { host })).toMatchObject({ status: 404 });
    const upper = await send('/api/v1/users', { host: portHost().toUpperCase() });
    expect(upper.status).toBe(401);
    // Names are case-insensitive: in Host, in Origin, and during the sign-in.
    const shouted = await enter(cookies.owner, { host: portHost().toUpperCase() });
    expect(shouted.back!.hostname).toBe(portHost());
    const got = await send('/', {
      host: portHost().toUpperCase(),
      method: 'POST',
      cookie: shouted.cookie,
      headers: { origin: `http://${portHost(9).toUpperCase()}:${sitePort()}`, 'sec-fetch-site': 'same-site' },
    });
    expect(got.json().headers).toMatchObject({
      host: `localhost:${port()}`,
      'x-original-host': `${portHost()}:${sitePort()}`,
      origin: 'http://localhost:9',
    });
    expect((await send('http://127.0.0.1/api/v1/auth/methods', { host: portHost() })).status).toBe(400);
    // Names of another satellite are not found here.
    if (where === 'satellite')
      expect((await send('/', { host: `${port()}--hello--owner.localhost` })).status).toBe(404);
    // If the port has a name, its path redirects to that.
    if (where === 'satellite') return;
    const led = await send(`${byPath()}/x?y`, { page: true, cookie: cookies.owner });
    expect(led.headers.location).toBe(`http://${portHost()}:${new URL(dashboard()).port}/x?y`);
  });

  test('signed-in: suspending a user ends open connections soon', async () => {
    await share('signed-in');
    const { cookie } = await enter(cookies.member);
    expect(await send('/', { host: portHost(), cookie })).toMatchObject({ status: 200 });
    const events = ask('/events', { host: portHost(), cookie });
    const [reply] = (await once(events, 'response')) as [IncomingMessage];
    reply.on('error', () => {});
    reply.resume();
    const began = performance.now();
    const closed = new Promise((resolve) => reply.once('close', resolve));
    expect(await api('PATCH', '/api/v1/users/ada', { status: 'suspended' })).toMatchObject({ status: 200 });
    await closed;
    // At most ten seconds, and more on a busy machine. Without revocation they would not end.
    expect(performance.now() - began).toBeLessThan(60_000);
    expect(await send('/', { host: portHost(), cookie })).toMatchObject({ status: 401 });
    await api('PATCH', '/api/v1/users/ada', { status: 'active' });
    // Their sessions have ended as well.
    expect(await send('/', { host: portHost(), cookie })).toMatchObject({ status: 401 });
    cookies.member = await signIn('ada');
  });

  test('the API lists ports with their addresses, and shares are in the audit log', async () => {
    const list = await api('GET', '/api/v1/workspaces/hello/ports');
    expect(list.body).toMatchObject({ mostLevel: 'public', by: 'name' });
    expect(list.body.items).toContainEqual(
      expect.objectContaining({
        port: port(),
        level: 'signed-in',
        url: `http://${port()}--hello--owner.localhost:${new URL(dashboard()).port}/`,
        elsewhere:
          where === 'server'
            ? []
            : [{ satellite: 'east', region: '', url: `http://${portHost()}:${sitePort()}/` }],
      }),
    );
    const audit = await api('GET', '/api/v1/audit?action=workspace.port*&limit=1000');
    expect(
      audit.body.items.map(({ action, before, after }: any) => [action, before?.level, after?.level]),
    ).toEqual(
      expect.arrayContaining([
        ['workspace.port-share', undefined, 'public'],
        ['workspace.port-share', 'public', 'owner'],
        ['workspace.port-unshare', 'owner', undefined],
      ]),
    );
  });

  async function enterUntilCode(session: string) {
    const first = await send('/', { host: portHost(), page: true });
    const open = new URL(first.headers.location!);
    const second = await openPort(session, open.search);
    return { state: cookieOf(first, 'cde_port_state'), search: new URL(second.json().location).search };
  }
}
