import { existsSync } from 'node:fs';
import { chmod, lstat, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createAgentLease, endAgentLease, LeaseInput } from '@cde/api/activity.ts';
import { CallError } from '@cde/api/client.ts';
import type { ServerClient } from '../../server/client.ts';
import type { OwnTools } from '../../ssh/environment.ts';
import type { Activity } from '../activity.ts';
import { linkCommand } from './command-link.ts';

// Not imported: see api/send-request.ts.
const { createServer } = process.getBuiltinModule('node:http');

/** A lease request has two short fields. */
const maxBodyBytes = 8 * 1024;
/** More than a build with many jobs needs at the same time. */
const maxConnections = 32;
const requestTimeoutMs = 10_000;

export interface ToolSocket extends OwnTools {
  /** Runs `cde` in any shell, also in one whose profile has reset PATH. */
  command: string;
  close(): Promise<void>;
}

/**
 * Serves programs of the workspace, which have no credential, on a Unix socket that only the workspace's user can open: HTTP with
 * `POST /keep-awake {"seconds": 10800, "reason": "…"}`, `DELETE /keep-awake/ID` and `GET /activity`. Creates the command `cde`
 * beside it.
 */
export async function serveTools(options: {
  workspaceId: string;
  /** Where sessions start. */
  home: string;
  /** The PATH of sessions, without the folder of the tools. */
  searchPath?: string;
  client: ServerClient;
  activity: Activity;
  /** What the server said last about idleness. */
  idle: () => unknown;
  /** Writes to the build log. */
  print: (text: string) => void;
}): Promise<ToolSocket> {
  const parent = await privateFolder(options.workspaceId);
  const folder = join(parent, 'bin');
  const socket = join(parent, 'agent.sock');
  await mkdir(folder, { recursive: true });
  // Left over from an agent that was killed.
  await rm(socket, { force: true });
  const program = join(folder, 'cde');
  await writeFile(program, commandScript());
  await chmod(program, 0o755);

  const server = createServer(
    { requestTimeout: requestTimeoutMs, maxHeaderSize: maxBodyBytes },
    (request, response) => {
      answer(request, options).then(
        ([status, body]) => send(response, status, body),
        (error) => send(response, ...failure(error, options.print)),
      );
    },
  );
  server.maxConnections = maxConnections;
  server.unref();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(socket, resolve);
  });
  server.on('error', (error) => options.print(`programs of the workspace cannot connect: ${error.message}`));
  await chmod(socket, 0o600);
  const link = await linkCommand(options.home, program, options.searchPath ?? process.env.PATH ?? '');
  return {
    socket,
    folder,
    command: link?.command ?? quote(program),
    async close() {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
      await link?.remove();
      await rm(parent, { recursive: true, force: true });
    },
  };
}

/**
 * A folder of this user alone. The same after a restart of the agent, so that terminals that outlive it find the new socket;
 * another one if another user owns that name in a shared /tmp.
 */
async function privateFolder(workspaceId: string): Promise<string> {
  const wanted = join(tmpdir(), `cde-${workspaceId}`);
  await mkdir(wanted, { mode: 0o700 }).catch(() => {});
  const found = await lstat(wanted).catch(() => null);
  const isOurs = found?.isDirectory() && found.uid === process.getuid?.() && (found.mode & 0o077) === 0;
  return isOurs ? wanted : mkdtemp(join(tmpdir(), 'cde-agent-'));
}

async function answer(
  request: IncomingMessage,
  { client, activity, idle }: Parameters<typeof serveTools>[0],
): Promise<[status: number, body?: unknown]> {
  const { method, url = '' } = request;
  if (method === 'GET' && url === '/activity') return [200, { ...activity.report(), idle: idle() }];
  if (method === 'POST' && url === '/keep-awake') {
    const body = LeaseInput.safeParse(await readJson(request));
    if (!body.success) {
      const { path, message } = body.error.issues[0]!;
      throw new Refusal(400, 'bad-request', `${path.join('.') || 'The body'} ${message}.`, example);
    }
    return [201, await client.call(createAgentLease, { body: body.data })];
  }
  const lease = /^\/keep-awake\/([0-9a-f-]{36})$/.exec(url)?.[1];
  if (method === 'DELETE' && lease) {
    await client.call(endAgentLease, { params: { lease } });
    return [204];
  }
  throw new Refusal(
    404,
    'route-not-found',
    `There is no ${method} ${url}.`,
    'There are POST /keep-awake, DELETE /keep-awake/ID and GET /activity.',
  );
}

/** The hint for an invalid lease request. */
const example = 'Send {"seconds": 10800, "reason": "training"}.';

class Refusal extends Error {
  readonly status: number;
  readonly code: string;
  readonly hint: string;
  constructor(status: number, code: string, message: string, hint: string) {
    super(message);
    this.status = status;
    this.code = code;
    this.hint = hint;
  }
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > maxBodyBytes)
      throw new Refusal(413, 'payload-too-large', `The body is longer than ${maxBodyBytes} bytes.`, example);
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString());
  } catch {
    throw new Refusal(400, 'bad-request', 'The body is not JSON.', example);
  }
}

function failure(error: unknown, print: (text: string) => void): [status: number, body: unknown] {
  if (error instanceof Refusal) {
    const { status, code, message, hint } = error;
    return [status, { code, message, hint }];
  }
  if (error instanceof CallError) {
    if (error.status === 0)
      return [
        503,
        { code: error.code, message: 'The server cannot be reached.', hint: 'Try again in a minute.' },
      ];
    const { code, message, hint = 'Correct the request, or ask an admin of the installation.' } = error.body;
    return [error.status, { code, message, hint }];
  }
  print(`a request of a program in the workspace failed: ${(error as Error)?.stack ?? error}`);
  return [
    500,
    {
      code: 'internal',
      message: 'Something went wrong in the agent of this workspace.',
      hint: "Try again. The workspace's build log says more.",
    },
  ];
}

function send(response: ServerResponse, status: number, body?: unknown): void {
  if (response.destroyed) return;
  response.writeHead(status, { 'content-type': 'application/json', connection: 'close' });
  response.end(body === undefined ? undefined : `${JSON.stringify(body)}\n`);
}

/** Runs the command with the agent's own Node: an image need not have one. */
function commandScript(): string {
  const bundled = join(import.meta.dirname, 'keep-awake.mjs');
  const program = existsSync(bundled) ? bundled : join(import.meta.dirname, 'command.ts');
  return `#!/bin/sh\nexec ${quote(process.execPath)} ${quote(program)} "$@"\n`;
}

const quote = (word: string) => (/^[\w./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);
