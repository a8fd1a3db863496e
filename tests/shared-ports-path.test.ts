import { once } from 'node:events';
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { WebSocket } from 'ws';
import { usePorts } from './shared-ports/fixture.ts';

describe('by path, without a wildcard name', () => {
  const ports = usePorts('path');
  const { api, byPath, cookies, dashboard, openPort, port, program, send, sessionKeys, share } = ports;

  beforeAll(() => share('owner'));

  /** The path with the pass that the dashboard gets. */
  async function pass(session: string) {
    const got = await send(`${byPath()}/`, { page: true, cookie: session });
    const to = encodeURIComponent(`${byPath()}/`);
    expect(got).toMatchObject({ status: 302, headers: { location: `/ports/open?to=${to}` } });
    const opened = await openPort(session, `to=${to}`);
    expect(opened.status).toBe(200);
    return opened.json().location as string;
  }
  /** The headers of a browser's request for a resource of a sandboxed page. */
  const fromPage = {
    origin: 'null',
    'sec-fetch-site': 'cross-site',
    'sec-fetch-mode': 'cors',
    'sec-fetch-dest': 'empty',
  };

  test('the policy of the server applies', async () => {
    expect(await api('PUT', `/api/v1/workspaces/hello/ports/${port()}`, { level: 'public' })).toMatchObject({
      status: 403,
      body: { code: 'port-sharing-limited' },
    });
  });

  test('the page is sandboxed and neither receives nor sets cookies', async () => {
    const seen = program.seen.length;
    const path = await pass(cookies.owner);
    expect(path).toMatch(/^\/@owner\/hello\/ports\/\d+\/~cde\.[\w.-]+\/$/);
    // The workspace received no request so far.
    expect(program.seen.length).toBe(seen);
    const got = await send(`${path}headers`, {
      page: true,
      cookie: `${cookies.owner}; proxy=secret`,
      headers: { authorization: 'Basic b3duOnB3', referer: `${dashboard()}${path}` },
    });
    expect(got.status).toBe(200);
    const { headers, url } = got.json();
    expect(url).toBe('/headers');
    expect(headers).toMatchObject({ 'x-forwarded-prefix': path.slice(0, -1), host: `localhost:${port()}` });
    for (const name of ['cookie', 'authorization', 'referer']) expect(headers).not.toHaveProperty(name);
    expect(got.headers['content-security-policy']).toMatch(/^sandbox (?!.*allow-same-origin.*, )/);
    expect(got.headers['content-security-policy']).toContain(', sandbox allow-same-origin');
    for (const name of [
      'set-cookie',
      'service-worker-allowed',
      'clear-site-data',
      'access-control-allow-origin',
    ])
      expect(got.headers).not.toHaveProperty(name);
    expect(got.headers).toMatchObject({ 'referrer-policy': 'no-referrer', 'x-own': 'yes' });
    expect(got.headers['cache-control']).toBe('private, max-age=60');
    // Its own files, without cookies, as modules are loaded.
    const file = await send(`${path}app.js`, { headers: fromPage });
    expect(file).toMatchObject({ status: 200, headers: { 'access-control-allow-origin': 'null' } });
    expect((await send(`${path}away`, { headers: fromPage })).headers.location).toBe(`${path}here?x=1`);
    const asked = {
      ...fromPage,
      'access-control-request-method': 'PUT',
      'access-control-request-headers': 'x-a',
    };
    expect(await send(`${path}api`, { method: 'OPTIONS', headers: asked })).toMatchObject({ status: 204 });
    // The dashboard's API is cross-origin for it.
    const act = await send('/api/v1/auth/one-time-links', {
      method: 'POST',
      headers: fromPage,
      cookie: cookies.owner,
    });
    expect(act.status).toBe(401);
  });

  test('rejects loads by the dashboard, and service workers', async () => {
    const path = await pass(cookies.owner);
    const script = {
      'sec-fetch-site': 'same-origin',
      'sec-fetch-mode': 'no-cors',
      'sec-fetch-dest': 'script',
    };
    expect(await send(`${path}app.js`, { headers: script, cookie: cookies.owner })).toMatchObject({
      status: 403,
    });
    expect(
      await send(`${path}sw.js`, { headers: { 'service-worker': 'script' }, cookie: cookies.owner }),
    ).toMatchObject({ status: 403 });
  });

  test('WebSockets need the pass; the cookie is not enough', async () => {
    const path = await pass(cookies.owner);
    const open = (at: string, headers: Record<string, string>) => {
      const socket = new WebSocket(`${dashboard().replace('http', 'ws')}${at}`, { headers });
      onTestFinished(() => socket.terminate());
      return socket;
    };
    expect(String((await once(open(`${path}live`, { origin: 'null' }), 'message'))[0])).toBe('welcome');
    expect(program.last().url).toBe('/live');
    const plain = open(`${byPath()}/live`, { cookie: cookies.owner, origin: dashboard() });
    expect(String((await once(plain, 'error'))[0])).toContain('401');
  });

  test('a pass is valid for one port and one browser session', async () => {
    const path = await pass(cookies.owner);
    // Opened by another user: redirects to the plain path, which asks them to sign in.
    const opened = await send(path, { page: true, cookie: cookies.member });
    expect(opened).toMatchObject({ status: 302, headers: { location: `${byPath()}/` } });
    expect(await openPort(cookies.member, `to=${byPath()}/`)).toMatchObject({ status: 404 });
    expect((await send(`${byPath()}/`, { page: true })).headers.location).toMatch(/^\/ports\/open\?to=/);
    sessionKeys.set(`${cookies.owner}; a=b`, 'guessed');
    expect(await openPort(`${cookies.owner}; a=b`, `to=${byPath()}/`)).toMatchObject({ status: 401 });
    await share('owner', 9);
    const other = path.replace(`/ports/${port()}/`, '/ports/9/');
    expect(await send(`${other}x`, { headers: fromPage })).toMatchObject({ status: 401 });
    await share(null, 9);
    // Not the last character, whose lowest bits base64url ignores.
    const forged = path.replace(/(.)(?=.\/$)/, (letter) => (letter === 'x' ? 'y' : 'x'));
    expect(await send(`${forged}x`, { headers: fromPage })).toMatchObject({ status: 401 });
    // Dots in the path are passed to the program.
    const seen = program.seen.length;
    for (const dots of [
      '../../../../api/v1/users',
      '%2e%2e/%2e%2e/api/v1/users',
      '..%2f..%2fhealthz',
      '/evil.example/',
    ]) {
      const got = await send(`${path}${dots}`, { headers: fromPage });
      expect(got.json().url).toBe(`/${dots}`);
    }
    expect(program.seen.length).toBe(seen + 4);
    // Signing out, or ending the share, ends the pass.
    await share(null);
    expect(await send(`${path}x`, { headers: fromPage })).toMatchObject({ status: 401 });
  });
});
