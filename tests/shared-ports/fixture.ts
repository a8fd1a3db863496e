import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { type IncomingHttpHeaders, type IncomingMessage, request as makeRequest } from 'node:http';
import { afterAll, beforeAll, expect } from 'vitest';
import { type Api, makeApi } from '../kit/api.ts';
import { cloneDatabase } from '../kit/database.ts';
import { freePort } from '../kit/free-port.ts';
import { inTestNetwork, type Machine, makeMachine, type Server } from '../kit/machine.ts';
import { makeProgram } from './programs.ts';

/** Where ports are served: by name at the server or at a satellite, or by path at the server. */
export type Where = 'server' | 'satellite' | 'path';

export interface Site {
  /** The suffix of the ports' host names. */
  suffix: string;
  url: string;
}

interface Got {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
  json: () => any;
}
interface Asking {
  host?: string;
  method?: string;
  headers?: Record<string, string>;
  cookie?: string;
  body?: unknown;
  /** Sends the headers of a browser's navigation. */
  page?: boolean;
  /** The URL to send it to; by default this suite's site, or the server if there is no `host`. */
  site?: Site;
  /** A body that is sent some time after the headers. */
  later?: string;
}
const browserPage = {
  accept: 'text/html,*/*',
  'sec-fetch-mode': 'navigate',
  'sec-fetch-dest': 'document',
  'sec-fetch-site': 'none',
};

const cookieOf = (got: Got, name: string) =>
  (got.headers['set-cookie'] ?? [])
    .map((line) => line.split(';')[0]!)
    .find((pair) => pair.startsWith(`${name}=`)) ?? '';

export type Ports = ReturnType<typeof usePorts>;

/**
 * A machine with a server, a workspace `hello` of `owner` and a program in it, whose port is served at `where`. Set up once
 * for the test file.
 */
export function usePorts(where: Where) {
  let machine: Machine;
  let server: Server;
  let api: Api & { token: string };
  let site: Site;
  let satelliteToken = '';
  const program = makeProgram();
  /** The dashboard's cookies of the workspace's owner and of a member. */
  const cookies = { owner: '', member: '' };
  /** The session key that belongs to each cookie. */
  const sessionKeys = new Map<string, string>();

  beforeAll(async () => {
    machine = await makeMachine({ ...inTestNetwork, DATABASE_URL: await cloneDatabase() });
    await mkdir(machine.env.HOME!, { recursive: true });
    const env: Record<string, string> =
      where === 'path' ? { CDE_PORT_HOST: 'off', CDE_PORT_SHARING: 'signed-in' } : {};
    server = await machine.start(env);
    site = { suffix: where === 'path' ? '' : '.localhost', url: server.url };
    api = await makeApi(machine, server.url);
    await program.listen();
    expect(
      (await api('POST', '/api/v1/users', { username: 'ada', password: 'a password of ada' })).status,
    ).toBe(201);
    const link = await api('POST', '/api/v1/auth/one-time-links');
    const code = new URL(link.body.url).hash.slice('#code='.length);
    cookies.owner = signedIn(await send('/api/v1/auth/one-time', { body: { code } }));
    cookies.member = await signIn('ada');
    if (where === 'satellite') site = await startSatellite();
  });
  afterAll(async () => {
    program.close();
    await machine?.remove();
  });

  /** Starts a satellite that serves ports under its own name. */
  async function startSatellite(): Promise<Site> {
    const added = await machine.cde('satellite', 'add', 'east');
    satelliteToken = added.stdout.trim();
    const at = await freePort();
    expect(await machine.cde('satellite', 'web', 'east', '--port-host', '*.east.localhost')).toMatchObject({
      code: 0,
    });
    const satellite = machine.begin(
      ['satellite', 'start', '--server', server.url, '--listen', `127.0.0.1:${at}`],
      { CDE_SATELLITE_TOKEN: satelliteToken, CDE_LOG_LEVEL: 'info' },
    );
    await satellite.says('satellite is registered');
    // A new agent gets all satellites in its first manifest.
    expect(await machine.cde('restart', 'hello')).toMatchObject({ code: 0 });
    return { suffix: '.east.localhost', url: `http://127.0.0.1:${at}` };
  }

  async function signIn(username: string): Promise<string> {
    return signedIn(
      await send('/api/v1/auth/sign-in', { body: { username, password: `a password of ${username}` } }),
    );
  }
  function signedIn(reply: Got): string {
    const cookie = cookieOf(reply, 'cde_session');
    sessionKeys.set(cookie, reply.json().sessionKey);
    return cookie;
  }

  /** What the dashboard's page `/ports/open` requests for its visitor. */
  const openPort = (session: string, search: string | URLSearchParams) =>
    send('/api/v1/port-visits', {
      cookie: session,
      headers: { 'x-cde-session-key': sessionKeys.get(session) ?? '' },
      body: Object.fromEntries(new URLSearchParams(search)),
    });

  /** Sends a request without resolving names or following redirects. */
  function ask(path: string, asking: Asking = {}) {
    const url = (asking.site ?? (asking.host === undefined ? undefined : site))?.url ?? server.url;
    const { hostname, port: at } = new URL(url);
    const json = asking.body !== undefined && !(asking.body instanceof Buffer);
    const request = makeRequest({
      host: hostname,
      port: at,
      path,
      method: asking.method ?? (asking.body === undefined ? 'GET' : 'POST'),
      headers: {
        host: `${asking.host ?? hostname}:${at}`,
        ...(asking.page && browserPage),
        ...(asking.cookie && { cookie: asking.cookie }),
        ...(json && { 'content-type': 'application/json', origin: server.url }),
        ...asking.headers,
      },
    });
    request.on('error', () => {});
    if (asking.later !== undefined) {
      request.flushHeaders();
      setTimeout(() => request.end(asking.later), 100);
    } else if (asking.body instanceof Buffer) request.end(asking.body);
    else request.end(json ? JSON.stringify(asking.body) : undefined);
    return request;
  }
  async function send(path: string, asking: Asking = {}): Promise<Got> {
    const [reply] = (await once(ask(path, asking), 'response')) as [IncomingMessage];
    const pieces: Buffer[] = [];
    for await (const piece of reply) pieces.push(piece);
    const text = Buffer.concat(pieces).toString();
    return { status: reply.statusCode!, headers: reply.headers, text, json: () => JSON.parse(text) };
  }

  const port = () => program.port;
  const portHost = (at = port(), on = site) => `${at}--hello--owner${on.suffix}`;

  async function share(level: 'owner' | 'signed-in' | 'public' | null, at = port()) {
    const path = `/api/v1/workspaces/hello/ports/${at}`;
    const done = await (level ? api('PUT', path, { level }) : api('DELETE', path));
    expect(done.status).toBe(level ? 200 : 204);
  }

  /** Opens a port like a browser that is signed in to the dashboard; returns its cookies of the port's host name. */
  async function enter(session: string, { at = site, host = portHost(port(), at), path = '/' } = {}) {
    const first = await send(path, { site: at, host, page: true });
    expect(first.status).toBe(302);
    const state = cookieOf(first, 'cde_port_state');
    const open = new URL(first.headers.location!);
    expect(open.origin).toBe(server.url);
    expect(open.pathname).toBe('/ports/open');
    const second = await openPort(session, open.search);
    if (second.status !== 200) return { second, cookie: '', state, back: null };
    const back = new URL(second.json().location);
    const third = await send(`${back.pathname}${back.search}`, { site: at, host, page: true, cookie: state });
    return { second, third, state, back, cookie: cookieOf(third, 'cde_port') };
  }

  return {
    where,
    program,
    cookies,
    sessionKeys,
    machine: () => machine,
    api: ((...call) => api(...call)) as Api,
    token: () => api.token,
    satelliteToken: () => satelliteToken,
    dashboard: () => server.url,
    site: () => site,
    sitePort: () => new URL(site.url).port,
    serverSite: (): Site => ({ suffix: '.localhost', url: server.url }),
    port,
    portHost,
    byPath: () => `/@owner/hello/ports/${port()}`,
    signIn,
    openPort,
    ask,
    send,
    share,
    enter,
    cookieOf,
  };
}
