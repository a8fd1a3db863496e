import { randomUUID } from 'node:crypto';
import type { Lease } from '@cde/api/activity.ts';
import type { Client } from '@cde/api/client.ts';
import { parseDuration } from '@cde/api/durations.ts';
import { holdAwake, type LeaseClient } from '@cde/api/hold-awake.ts';
import { keptAwakeText } from '@cde/api/idle-text.ts';
import { agentSocketVariable, reasonOf } from '@cde/api/keep-awake.ts';
import type { Context } from '../command/context.ts';
import { type Block, line, note, type Result, result } from '../command/result.ts';
import { createLease, endLease, getWorkspaceActivity } from '../connection/endpoints.ts';
import { toFailure, usage } from '../failure/failure.ts';
import { runForeground } from '../processes/foreground.ts';
import { pathRef } from '../workspaces/reference.ts';
import { createLeaseHere, endLeaseHere } from './agent-socket.ts';

/** Without --for and without a command. */
const defaultSeconds = 3600;
const isLeaseId = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

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
  const maxSeconds = readLength(input);
  const reason = input.reason ?? reasonOf(command);
  if (workspace === undefined) {
    const leases = agentLeases(socket!, reason);
    if (command.length > 0) return runHere(context, leases, command, maxSeconds);
    const lease = await leases.create(maxSeconds ?? defaultSeconds);
    return described('This workspace', lease, note(`To end that earlier: cde keep-awake --end ${lease.id}`));
  }
  if (command.length > 0) return runThere(context, workspace, { ...input, command, reason }, maxSeconds);
  const leases = serverLeases(await context.client(), workspace, reason);
  return described(workspace, await leases.create(maxSeconds ?? defaultSeconds));
}

function described(name: string, lease: Lease, ...more: Block[]): Result {
  const now = Date.now();
  return result(lease, () => [line(`${name} ${keptAwakeText(lease, now)}.`), ...more]);
}

function readLength(input: Input): number | undefined {
  if (input.for === undefined) return undefined;
  const seconds = parseDuration(input.for);
  if (seconds === null)
    throw usage(
      `--for takes a length of time, not ${JSON.stringify(input.for)}.`,
      'For example 30m, 3h or 8h.',
    );
  return seconds;
}

async function end(context: Context, input: Input, workspace: string | undefined): Promise<Result> {
  if (input.for !== undefined || input.command?.length)
    throw usage('--end takes neither --for nor a command.');
  const socket = context.env[agentSocketVariable];
  if (socket && workspace !== undefined && isLeaseId.test(workspace)) {
    await endLeaseHere(socket, workspace);
    return result({ ended: [{ id: workspace }] }, () => [line('The keep-awake has ended.')]);
  }
  // The agent lists no leases, so ending all of them needs the server.
  const name = workspace ?? context.env.CDE_WORKSPACE;
  if (!name) throw usage('--end needs the name of the workspace.', 'For example: cde keep-awake web --end');
  const client = await context.client();
  const params = { workspace: pathRef(name) };
  const { leases } = await client.call(getWorkspaceActivity, { params });
  await Promise.all(
    leases.map(({ id }) => client.call(endLease, { params: { ...params, lease: id } }).catch(ignoreMissing)),
  );
  return result({ ended: leases }, () => [
    leases.length === 0
      ? line(`No keep-awake of ${name} is active.`)
      : line(`${name} is no longer kept awake. When it stops: cde activity ${name}`),
  ]);
}

/** It expired meanwhile. */
function ignoreMissing(error: unknown): void {
  if ((error as { status?: number }).status !== 404) throw error;
}

const agentLeases = (socket: string, reason: string): LeaseClient<Lease> => ({
  create: (seconds, renews) => createLeaseHere(socket, { seconds, reason, renews }),
  end: (id) => endLeaseHere(socket, id),
});

const serverLeases = (client: Client, workspace: string, reason: string): LeaseClient<Lease> => {
  const params = { workspace: pathRef(workspace) };
  return {
    create: (seconds, renews) =>
      client.call(createLease, { params, body: { seconds, reason, renews }, idempotencyKey: randomUUID() }),
    async end(id) {
      await client.call(endLease, { params: { ...params, lease: id } }).catch(ignoreMissing);
    },
  };
};

async function runHere(
  context: Context,
  leases: LeaseClient,
  command: string[],
  seconds: number | undefined,
): Promise<number> {
  return whileHeld(context, leases, seconds, async () => {
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
  const { connectSsh } = await import('../ssh/ssh.ts');
  const { startChoice } = await import('../ssh/start-question.ts');
  const run = await connectSsh(context, {
    workspace,
    command: input.command,
    start: startChoice(context, { start: input.start, noStart: false }),
    tty: process.stdin.isTTY === true && process.stdout.isTTY === true,
  });
  // Once it runs: a stopped workspace cannot be kept awake.
  const client = await context.client();
  return whileHeld(context, serverLeases(client, workspace, input.reason), seconds, run);
}

async function whileHeld(
  context: Context,
  leases: LeaseClient,
  seconds: number | undefined,
  run: () => Promise<number>,
): Promise<number> {
  const held = await holdAwake(leases, {
    maxSeconds: seconds,
    onProblem: (error) =>
      context.out.note(`The workspace may stop: keep-awake was not renewed (${toFailure(error).message})`),
  });
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
