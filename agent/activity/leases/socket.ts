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

// Not imported: see api/send-request.ts.
const { createServer } = process.getBuiltinModule('node:http');

/** A lease request has two short fields. */
const maxBodyBytes = 8 * 1024;
/** More than a build with many jobs needs at the same time. */
const maxConnections = 32;
const requestTimeoutMs = 10_000;

export interface ToolSocket extends OwnTools {
  close(): Promise<void>;
}

/**
 * Serves programs of the workspace, which have no credential, on a Unix socket that only the workspace's user can open: HTTP with
 * `POST /keep-awake {"seconds": 10800, "reason": "…"}`, `DELETE /keep-awake/ID` and `GET /activity`. Creates the command `cde`
 * beside it.
 */
export async function serveTools(options: {
  workspaceId: string;
  client: ServerClient;
  activity: Activity;
  /** What the server said last about idleness. */
  idle: () => unknown;
}): Promise<ToolSocket> {
  const parent = await privateFolder(options.workspaceId);
  const folder = join(parent, 'bin');
  const socket = join(parent, 'agent.sock');
  await mkdir(folder, { recursive: true });
  // Left over from an agent that was killed.
  await rm(socket, { force: true });
  await writeFile(join(folder, 'cde'), commandScript());
  await chmod(join(folder, 'cde'), 0o755);

  const server = createServer(
    { requestTimeout: requestTimeoutMs, maxHeaderSize: maxBodyBytes },
    (request, response) => {
      answer(request, options).then(
        ([status, body]) => send(response, status, body),
        (error) => send(response, ...failure(error)),
      );
    },
  );
  server.maxConnections = maxConnections;
  server.unref();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(socket, resolve);
  });
  await chmod(socket, 0o600);
  return {
    socket,
    folder,
    async close() {
      server.close();
      server.closeAllConnections();
      await rm(parent, { recursive: true, force: true });
    },
  };
}

/**
 * A folder of this user alone. The same after a restart of the agent, so that terminals that outlive it find the new socket;
 * another one if somebody else has taken the name in a shared /tmp.
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
    if (!body.success)
      throw new Refusal(400, 'Send {"seconds": 10800, "reason": "…"}, with at least one second.');
    return [201, await client.call(createAgentLease, { body: body.data })];
  }
  const lease = /^\/keep-awake\/([0-9a-f-]{36})$/.exec(url)?.[1];
  if (method === 'DELETE' && lease) {
    await client.call(endAgentLease, { params: { lease } });
    return [204];
  }
  throw new Refusal(404, 'There are POST /keep-awake, DELETE /keep-awake/ID and GET /activity.');
}

class Refusal extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > maxBodyBytes) throw new Refusal(413, `The body is longer than ${maxBodyBytes} bytes.`);
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString());
  } catch {
    return null;
  }
}

function failure(error: unknown): [status: number, body: unknown] {
  if (error instanceof Refusal) return [error.status, { message: error.message }];
  if (error instanceof CallError && error.status > 0)
    return [
      error.status,
      { code: error.code, message: error.message, ...(error.body.hint && { hint: error.body.hint }) },
    ];
  return [503, { message: 'The server cannot be reached. Try again in a minute.' }];
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
  const quote = (word: string) => `'${word.replaceAll("'", `'\\''`)}'`;
  return `#!/bin/sh\nexec ${quote(process.execPath)} ${quote(program)} "$@"\n`;
}
