/**
 * `cde` inside a workspace that has no other: keeps the workspace awake through the agent's socket. A program of its own, with
 * little more than Node's modules, so that it starts at once.
 */
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { parseArgs } from 'node:util';
import { parseDuration } from '@cde/api/durations.ts';
import { type HeldLease, holdAwake } from '@cde/api/hold-awake.ts';
import { reasonOf } from '@cde/api/keep-awake.ts';
import { type HttpReply, sendRequest } from '@cde/api/send-request.ts';

const usage = `Keep this workspace awake.

usage: cde keep-awake [--for 3h] [--reason TEXT] [-- COMMAND…]
       cde keep-awake --end ID

  --for DURATION   how long: 90m, 3h, 2h30m. Default 1h; with a command, until that ends
  --reason TEXT    shown to everyone who sees the workspace
  --end ID         end a keep-awake before it expires
`;
const defaultSeconds = 3600;
const silenceMs = 30_000;
const maxReplyBytes = 64 * 1024;

interface Lease extends HeldLease {
  runEndsAt?: string | null;
}
interface Failure {
  code?: string;
  message?: string;
  hint?: string;
}

class Problem extends Error {
  /** Of the API's error. */
  readonly code: string | undefined;
  constructor(message: string, code?: string) {
    super(message);
    this.code = code;
  }
}

async function call(method: string, path: string, body?: unknown): Promise<unknown> {
  const socketPath = process.env.CDE_AGENT_SOCKET;
  if (!socketPath)
    throw new Problem(
      'CDE_AGENT_SOCKET is not set. Run this in a session of a workspace, and keep that variable.',
    );
  const { status, text } = await sendRequest(
    { socketPath, path },
    {
      method,
      headers: { host: 'agent', 'content-type': 'application/json' },
      body: body === undefined ? undefined : JSON.stringify(body),
      maxReplyBytes,
      silenceMs,
    },
  ).catch((error: Error): HttpReply => {
    throw new Problem(`The workspace's agent cannot be reached: ${error.message}`);
  });
  let reply: (Failure & Record<string, unknown>) | undefined;
  try {
    reply = JSON.parse(text || '{}');
  } catch {
    // Another program listens there; its status says enough.
  }
  if (status < 300) return reply;
  throw new Problem(
    [reply?.message ?? `the agent answered ${status}`, reply?.hint].filter(Boolean).join(' '),
    reply?.code,
  );
}

const leases = (reason: string) => ({
  create: (seconds: number, renews?: string) =>
    call('POST', '/keep-awake', { seconds, reason, renews }) as Promise<Lease>,
  async end(id: string) {
    await call('DELETE', `/keep-awake/${encodeURIComponent(id)}`);
  },
});

function readSeconds(text: string): number {
  const seconds = parseDuration(text);
  if (seconds === null) throw new Problem(`"${text}" is not a duration. Write 90m, 3h or 2h30m.`);
  return seconds;
}

const note = (text: string) => process.stderr.write(`cde: ${text}\n`);

/** Runs the command, and keeps the workspace awake meanwhile. Returns its exit code. */
async function runCommand(
  command: string[],
  maxSeconds: number | undefined,
  reason: string,
): Promise<number> {
  const held = await holdAwake(leases(reason), {
    maxSeconds,
    // The command matters more than the lease, and CPU or output keep the workspace awake as well.
    startsWithout: true,
    onProblem: (error) => note(`cannot keep the workspace awake: ${(error as Error).message}`),
  });
  // Before the command exists: a signal that arrived between the two would kill only this process.
  // The terminal sends its own signals to both; the command decides what they mean.
  for (const signal of ['SIGINT', 'SIGQUIT'] as const) process.on(signal, () => {});
  for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
  const child = spawn(command[0]!, command.slice(1), { stdio: 'inherit' });
  const code = await new Promise<number>((resolve) => {
    child.once('error', (error: NodeJS.ErrnoException) => {
      note(`cannot run ${command[0]}: ${error.code === 'ENOENT' ? 'no such command' : error.message}`);
      resolve(error.code === 'ENOENT' ? 127 : 126);
    });
    child.once('exit', (exitCode, signal) => resolve(exitCode ?? 128 + constants.signals[signal!]));
  });
  await held.release().catch(() => {});
  return code;
}

async function main(args: string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined || name === 'help' || name === '--help' || rest[0] === '--help') {
    process.stdout.write(usage);
    return name === undefined ? 2 : 0;
  }
  if (name !== 'keep-awake')
    throw new Problem(
      `There is no "${name}" here. The cde of a workspace only keeps it awake; install the CLI for everything else.`,
    );
  const at = rest.indexOf('--');
  const command = at < 0 ? [] : rest.slice(at + 1);
  let values: { for?: string; reason?: string; end?: string };
  try {
    ({ values } = parseArgs({
      args: at < 0 ? rest : rest.slice(0, at),
      options: { for: { type: 'string' }, reason: { type: 'string' }, end: { type: 'string' } },
    }));
  } catch (error) {
    throw new Problem(`${(error as Error).message.split('.')[0]}.`);
  }
  if (values.end !== undefined) {
    await leases('').end(values.end);
    note('the keep-awake has ended');
    return 0;
  }
  const seconds = values.for === undefined ? undefined : readSeconds(values.for);
  if (command.length > 0) return runCommand(command, seconds, values.reason ?? reasonOf(command));
  const { id, expiresAt, runEndsAt } = await leases(values.reason ?? '').create(seconds ?? defaultSeconds);
  const until = runEndsAt ? `${runEndsAt}, when the maximum run time ends` : expiresAt;
  process.stdout.write(`Awake until ${until}. To end that earlier: cde keep-awake --end ${id}\n`);
  return 0;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof Problem)) throw error;
  note(error.message);
  process.exitCode = 1;
}
