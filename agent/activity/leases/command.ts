/**
 * `cde` inside a workspace that has no other: keeps the workspace awake through the agent's socket. A program of its own, with
 * little more than Node's modules, so that it starts at once.
 */
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { parseArgs } from 'node:util';
import { parseDuration } from '@cde/api/durations.ts';
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
/** While a command runs. If this process is killed, the workspace stays awake for no longer than this. */
const stepSeconds = 15 * 60;
const renewAfterMs = 5 * 60_000;
const silenceMs = 30_000;
const maxReplyBytes = 64 * 1024;

interface Lease {
  id: string;
  expiresAt: string;
  runEndsAt?: string | null;
}
interface Failure {
  message?: string;
  hint?: string;
}

class Problem extends Error {}

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
  );
}

/** `renews`: the one to extend. A server of an earlier release grants another one. */
const lease = (seconds: number, reason: string, renews?: string) =>
  call('POST', '/keep-awake', { seconds, reason, renews }) as Promise<Lease>;
const end = ({ id }: Pick<Lease, 'id'>) => call('DELETE', `/keep-awake/${encodeURIComponent(id)}`);

function readSeconds(text: string): number {
  const seconds = parseDuration(text);
  if (seconds === null) throw new Problem(`"${text}" is not a duration. Write 90m, 3h or 2h30m.`);
  return seconds;
}

const note = (text: string) => process.stderr.write(`cde: ${text}\n`);

/** Runs the command, and keeps the workspace awake meanwhile. Returns its exit code. */
async function runCommand(command: string[], untilMs: number, reason: string): Promise<number> {
  let current: Lease | undefined;
  let warned = false;
  async function renew() {
    const seconds = Math.min(stepSeconds, Math.ceil((untilMs - performance.now()) / 1000));
    if (seconds <= 0) return;
    try {
      const next = await lease(seconds, reason, current?.id);
      const last = current;
      current = next;
      if (last && last.id !== next.id) await end(last).catch(() => {});
      warned = false;
    } catch (error) {
      // The command matters more than the lease, and CPU or output keep the workspace awake as well.
      if (!warned) note(`cannot keep the workspace awake: ${(error as Error).message}`);
      warned = true;
    }
  }
  let renewing = renew();
  await renewing;
  const timer = setInterval(() => {
    renewing = renew();
  }, renewAfterMs);
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
  clearInterval(timer);
  // Otherwise the lease that it is about to get would outlive the command.
  await renewing;
  if (current) await end(current).catch(() => {});
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
    await end({ id: values.end });
    note('the keep-awake has ended');
    return 0;
  }
  const seconds = values.for === undefined ? null : readSeconds(values.for);
  if (command.length > 0) {
    const untilMs = seconds === null ? Number.POSITIVE_INFINITY : performance.now() + seconds * 1000;
    return runCommand(command, untilMs, values.reason ?? reasonOf(command));
  }
  const { id, expiresAt, runEndsAt } = await lease(seconds ?? defaultSeconds, values.reason ?? '');
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
