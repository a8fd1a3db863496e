import { randomUUID } from 'node:crypto';
import type { Client } from '@cde/api/client.ts';
import { parseDuration } from '@cde/api/durations.ts';
import { clockText, whenText } from '@cde/api/idle-text.ts';
import type { Context } from '../context.ts';
import { createLease, endLease, getWorkspaceActivity } from '../endpoints.ts';
import { toFailure, usage } from '../failure.ts';
import { runForeground } from '../foreground.ts';
import { line, type Result, result } from '../result.ts';
import { pathRef } from '../workspaces/reference.ts';
import { agentSocketVariable, createLeaseHere, endLeaseHere } from './agent-socket.ts';
import { holdAwake, type LeaseDoor } from './hold.ts';

interface Input {
  workspace: string | undefined;
  command: string[] | undefined;
  for: string | undefined;
  reason: string | undefined;
  end: boolean;
  start: boolean;
}

export async function keepAwake(context: Context, input: Input): Promise<Result | number> {
  const workspace = input.workspace || undefined;
  const command = input.command ?? [];
  const socket = context.env[agentSocketVariable];
  if (workspace === undefined && !socket)
    throw usage(
      'Name the workspace.',
      'For example: cde keep-awake web --for 3h. Only in a workspace can the name be omitted.',
    );
  if (input.end) return end(context, input, workspace);
  const seconds = readLength(input, command);
  const reason = input.reason ?? (command.length > 0 ? command.join(' ').slice(0, 200) : '');
  if (workspace === undefined)
    return command.length > 0
      ? runHere(context, doorHere(socket!, reason), command, seconds)
      : described('This workspace', await createLeaseHere(socket!, { seconds: seconds!, reason }));
  if (command.length > 0) return runThere(context, workspace, { ...input, command, reason }, seconds);
  const client = await context.client();
  const door = doorThere(client, workspace, reason);
  return described(workspace, await door.create(seconds!));
}

function described(name: string, lease: Awaited<ReturnType<LeaseDoor['create']>>): Result {
  const now = Date.now();
  return result(lease, () => [
    line(`${name} stays awake until ${clockText(lease.expiresAt, now)} (${whenText(lease.expiresAt, now)}).`),
  ]);
}

function readLength(input: Input, command: string[]): number | undefined {
  if (input.for === undefined) {
    if (command.length > 0) return undefined;
    throw usage('Say for how long.', 'For example: --for 3h. With a command, until it ends: -- COMMAND');
  }
  const seconds = parseDuration(input.for);
  if (seconds === null)
    throw usage(
      `--for takes a length of time, not ${JSON.stringify(input.for)}.`,
      'For example 30m, 3h or 2d.',
    );
  return seconds;
}

async function end(context: Context, input: Input, workspace: string | undefined): Promise<Result> {
  if (input.for !== undefined || input.command?.length)
    throw usage('--end takes neither --for nor a command.');
  if (workspace === undefined)
    throw usage('--end needs the name of the workspace.', 'Run it where you are signed in.');
  const client = await context.client();
  const params = { workspace: pathRef(workspace) };
  const { leases } = await client.call(getWorkspaceActivity, { params });
  await Promise.all(
    leases.map(({ id }) => client.call(endLease, { params: { ...params, lease: id } }).catch(ignoreMissing)),
  );
  return result({ ended: leases }, () => [
    leases.length === 0
      ? line(`Nobody keeps ${workspace} awake.`)
      : line(`${workspace} is no longer kept awake. When it stops: cde activity ${workspace}`),
  ]);
}

/** It expired meanwhile. */
function ignoreMissing(error: unknown): void {
  if ((error as { status?: number }).status !== 404) throw error;
}

const doorHere = (socket: string, reason: string): LeaseDoor => ({
  create: (seconds) => createLeaseHere(socket, { seconds, reason }),
  end: (id) => endLeaseHere(socket, id),
});

const doorThere = (client: Client, workspace: string, reason: string): LeaseDoor => {
  const params = { workspace: pathRef(workspace) };
  return {
    create: (seconds) =>
      client.call(createLease, { params, body: { seconds, reason }, idempotencyKey: randomUUID() }),
    async end(id) {
      await client.call(endLease, { params: { ...params, lease: id } }).catch(ignoreMissing);
    },
  };
};

async function runHere(
  context: Context,
  door: LeaseDoor,
  command: string[],
  seconds: number | undefined,
): Promise<number> {
  return whileHeld(context, door, seconds, async () => {
    const [program = '', ...args] = command;
    const { code } = await runForeground(context, program, args, { env: context.env });
    return code;
  });
}

async function runThere(
  context: Context,
  workspace: string,
  input: { command: string[]; reason: string; start: boolean },
  seconds: number | undefined,
): Promise<number> {
  const { askToStart, connectSsh } = await import('../ssh/ssh.ts');
  const run = await connectSsh(context, {
    workspace,
    command: input.command,
    start: input.start || askToStart(context),
    tty: process.stdin.isTTY === true && process.stdout.isTTY === true,
  });
  // Once it runs: a stopped workspace cannot be kept awake.
  const client = await context.client();
  return whileHeld(context, doorThere(client, workspace, input.reason), seconds, run);
}

async function whileHeld(
  context: Context,
  door: LeaseDoor,
  seconds: number | undefined,
  run: () => Promise<number>,
): Promise<number> {
  const held = await holdAwake(door, seconds, context.out.note);
  try {
    return await run();
  } finally {
    await held.release().catch((error) => {
      // The command has ended; its exit code matters more.
      context.out.note(
        `The keep-awake could not be ended, it expires by itself (${toFailure(error).message})`,
      );
    });
  }
}
