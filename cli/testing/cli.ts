// biome-ignore-all lint/suspicious/noExplicitAny: tests look into replies of any shape
import { type ChildProcess, spawn } from 'node:child_process';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Endpoint } from '@cde/api/endpoint.ts';
import { afterAll, expect } from 'vitest';
import { compileCache } from '../../tests/kit/compile-cache.ts';
import { freePort } from '../../tests/kit/free-port.ts';

export const cdePath = fileURLToPath(new URL('../cde.mjs', import.meta.url));

export interface CommandResult {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** A home of its own in a temporary directory, and `cde` run in it as a real process. */
export interface TestHome {
  path: string;
  env: Record<string, string>;
  run(words: string[], more?: { input?: string; env?: Record<string, string> }): Promise<CommandResult>;
  /** Runs it and reads its stdout as JSON. */
  json(words: string[], more?: { input?: string; env?: Record<string, string> }): Promise<any>;
  /** Starts it, to be looked at while it runs; killed with the home. */
  start(words: string[], more?: { env?: Record<string, string> }): Running;
  remove(): Promise<void>;
}

export interface Running {
  child: ChildProcess;
  stdout(): string;
  stderr(): string;
  /** Resolves once stdout and stderr together hold the text. */
  says(text: string): Promise<void>;
  ended: Promise<CommandResult>;
}

export async function makeTestHome(): Promise<TestHome> {
  const path = await mkdtemp(join(tmpdir(), 'cde-cli-'));
  // The embedded PostgreSQL of a server that root starts runs as another user, who must get through.
  await chmod(path, 0o755);
  const env: Record<string, string> = {
    PATH: process.env.PATH ?? '',
    HOME: path,
    TERM: 'xterm-256color',
    // Shared by all tests: compiled once.
    ...compileCache,
  };
  const running = new Set<ChildProcess>();

  function start(words: string[], more: { input?: string; env?: Record<string, string> } = {}): Running {
    const child = spawn(process.execPath, [cdePath, ...words], {
      env: { ...env, ...more.env },
      cwd: path,
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    running.add(child);
    child.stdin!.on('error', () => {});
    if (more.input === undefined) child.stdin!.end();
    else child.stdin!.end(more.input);
    let stdout = '';
    let stderr = '';
    const waiting = new Set<() => void>();
    child.stdout!.setEncoding('utf8').on('data', (text) => {
      stdout += text;
      for (const check of waiting) check();
    });
    child.stderr!.setEncoding('utf8').on('data', (text) => {
      stderr += text;
      for (const check of waiting) check();
    });
    const ended = new Promise<CommandResult>((resolve) =>
      child.once('close', (code) => {
        running.delete(child);
        resolve({ code, stdout, stderr });
        for (const check of waiting) check();
      }),
    );
    return {
      child,
      stdout: () => stdout,
      stderr: () => stderr,
      says: (text) =>
        new Promise((resolve, reject) => {
          const check = () => {
            if ((stdout + stderr).includes(text)) resolve();
            else if (child.exitCode !== null || child.signalCode !== null)
              reject(new Error(`cde ended without saying ${JSON.stringify(text)}:\n${stdout}\n${stderr}`));
            else return;
            waiting.delete(check);
          };
          waiting.add(check);
          check();
        }),
      ended,
    };
  }

  return {
    path,
    env,
    start,
    run: (words, more) => start(words, more).ended,
    async json(words, more) {
      const ran = await start([...words, '--json'], more).ended;
      if (ran.code !== 0) throw new Error(`cde ${words.join(' ')} ended with ${ran.code}:\n${ran.stderr}`);
      return JSON.parse(ran.stdout);
    },
    async remove() {
      for (const child of running) child.kill('SIGKILL');
      await rm(path, { recursive: true, force: true });
    },
  };
}

/** Resolves once nothing listens on a port of this machine. */
export async function portClosed(port: number): Promise<void> {
  for (;;) {
    const open = await new Promise<boolean>((resolve) => {
      const socket = connect(port, '127.0.0.1');
      socket.once('connect', () => {
        socket.destroy();
        resolve(true);
      });
      socket.once('error', () => resolve(false));
    });
    if (!open) return;
    await delay(20);
  }
}

export interface RealServer {
  url: string;
  port: number;
  running: Running;
  /** Deletes the workspaces, so that no process outlives the test, and stops the server. */
  close(): Promise<void>;
}

/** The server itself, started as a newcomer does, with this home's `cde` signed in to it. */
export async function startServer(
  home: TestHome,
  { port, env }: { port?: number; env?: Record<string, string> } = {},
): Promise<RealServer> {
  const chosen = port ?? (await freePort());
  const running = home.start(['server', 'start', '--listen', `127.0.0.1:${chosen}`], {
    env: { CDE_DATA_DIR: join(home.path, 'data'), CDE_DOCKER: 'off', ...env },
  });
  await running.says('Ctrl-C stops the server');
  return {
    url: `http://127.0.0.1:${chosen}`,
    port: chosen,
    running,
    async close() {
      const names = ((await home.json(['list'])) as { name: string }[]).map(({ name }) => name);
      if (names.length > 0) await home.run(['delete', ...names, '--yes', '--discard-home']);
      running.child.kill('SIGTERM');
      await running.ended;
    },
  };
}

interface ReceivedRequest {
  params: Record<string, string>;
  query: Record<string, string>;
  body: any;
  headers: IncomingMessage['headers'];
  /** Breaks the connection off instead of replying. */
  hangUp(): never;
}

/** A reply other than a success. */
export class Refusal {
  readonly status: number;
  readonly body: unknown;
  readonly headers: Record<string, string>;
  constructor(status: number, body: unknown, headers: Record<string, string> = {}) {
    this.status = status;
    this.body = body;
    this.headers = headers;
  }
}

const hungUp = Symbol('hung up');

/**
 * A stand-in for the server, for what the real one will not do on demand: breaking off, refusing, taking its
 * time. It speaks the contract: what it gets and what it says is checked against the endpoint's schemas.
 */
export async function makeFakeServer() {
  const routes: {
    endpoint: Endpoint;
    pattern: RegExp;
    names: string[];
    answer: (asked: ReceivedRequest) => unknown;
  }[] = [];
  const faults: unknown[] = [];
  const server = createServer(async (request, response) => {
    const url = new URL(request.url!, 'http://stand-in');
    const route = routes.findLast(
      (one) => one.endpoint.method === request.method && one.pattern.test(url.pathname),
    );
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const reply = (status: number, body: unknown, headers: Record<string, string> = {}) => {
      response.writeHead(status, { 'content-type': 'application/json', ...headers });
      response.end(body === undefined ? undefined : JSON.stringify(body));
    };
    if (!route)
      return reply(404, {
        code: 'route-not-found',
        message: `${request.method} ${url.pathname} is not stood in for.`,
      });
    const { endpoint } = route;
    try {
      const values = route.pattern.exec(url.pathname)!.slice(1).map(decodeURIComponent);
      const text = Buffer.concat(chunks).toString();
      const query = Object.fromEntries(url.searchParams);
      endpoint.query?.parse(query);
      const answer = await route.answer({
        params: Object.fromEntries(route.names.map((name, at) => [name, values[at]!])),
        query,
        body: endpoint.body?.parse(JSON.parse(text)),
        headers: request.headers,
        hangUp() {
          throw hungUp;
        },
      });
      reply(
        endpoint.status ?? (endpoint.reply ? 200 : 204),
        endpoint.reply ? endpoint.reply.parse(answer) : undefined,
      );
    } catch (error) {
      if (error === hungUp) return void request.socket.destroy();
      if (error instanceof Refusal) return reply(error.status, error.body, error.headers);
      faults.push(error);
      reply(500, { code: 'internal', message: String(error) });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    /** What broke the contract; a test ends by expecting none. */
    faults,
    /** Answers an endpoint from now on. */
    on(endpoint: Endpoint<any, any, any, any>, answer: (asked: ReceivedRequest) => unknown) {
      const names = [...endpoint.path.matchAll(/:([a-zA-Z]+)/g)].map((match) => match[1]!);
      const pattern = new RegExp(`^${endpoint.path.replace(/:[a-zA-Z]+/g, '([^/]+)')}$`);
      routes.push({ endpoint, pattern, names, answer });
    },
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
export type FakeServer = Awaited<ReturnType<typeof makeFakeServer>>;

/** A home and a fake server for a test file, with the environment in which `cde` talks to it. Removed after the file's tests. */
export async function startFakeServer(): Promise<{
  home: TestHome;
  server: FakeServer;
  env: Record<string, string>;
}> {
  const home = await makeTestHome();
  const server = await makeFakeServer();
  afterAll(async () => {
    expect(server.faults).toEqual([]);
    await server.close();
    await home.remove();
  });
  return { home, server, env: { CDE_URL: server.url, CDE_TOKEN: 'cde_stand-in' } };
}
