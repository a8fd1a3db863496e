import { createPrivateKey, type KeyObject, randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { PathKind } from '@cde/api/agent.ts';
import type { Client } from '@cde/api/client.ts';
import type { TicketReply, Workspace } from '@cde/api/workspaces.ts';
import { makeClientKey } from '@cde/tunnel/auth/keys.ts';
import { TunnelError } from '@cde/tunnel/errors.ts';
import { collectBuffersEarly } from '@cde/tunnel/gc.ts';
import { releaseNativeWhenUnused } from '@cde/tunnel/paths/datachannel.ts';
import { describeChange, type PathChange } from '@cde/tunnel/selection/history.ts';
import type { Session, SessionOptions } from '@cde/tunnel/session/session.ts';
import type { Context } from '../command/context.ts';
import { createTicket, getWorkspace, startWorkspace } from '../connection/endpoints.ts';
import { recordWorkspaceSession, type SessionRecording, type ToldIncident } from '../diagnosis/recording.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure, toFailure } from '../failure/failure.ts';
import { hostOn, pathRef } from '../workspaces/reference.ts';
import { openingVariable } from './handover.ts';
import { pinHostKeys } from './known-hosts.ts';
import { renewTicket } from './renew-ticket.ts';
import { rttBook } from './rtt-book.ts';
import { notRunning, requireStart, type Start } from './start-question.ts';

/** A ticket and the key it is bound to: all that opening a session needs. */
export interface Opening extends TicketReply {
  clientPrivateKey: KeyObject;
}

/** A server that restarts is back within this time. */
const serverPatienceMs = 15_000;
/** An agent whose server or satellite restarted listens again within this time. */
const agentPatienceMs = 15_000;

/**
 * A ticket for a workspace, its host key pinned under the name that ssh has for it. A workspace that does not run
 * is started if `start` says so, with its progress on stderr; else, or where it cannot be, rejects in words.
 */
export async function makeOpening(context: Context, reference: string, start: Start): Promise<Opening> {
  const client = await context.client({ patienceMs: serverPatienceMs });
  const { privateKey, publicKey } = makeClientKey();
  const params = { workspace: pathRef(reference) };
  const until = performance.now() + agentPatienceMs;
  let started = false;
  for (;;) {
    try {
      const reply = await client.call(createTicket, {
        params,
        body: { clientKey: publicKey },
        // A ticket changes nothing: a second one may be asked for when the reply to the first is lost.
        idempotencyKey: randomUUID(),
      });
      requireUsername(reply.username);
      await pinHostKeys(context.env, new Map([[hostOn(context.server(), reference), reply.sshHostKey]]));
      return { ...reply, clientPrivateKey: privateKey };
    } catch (error) {
      const { code } = toFailure(error);
      if (code !== 'workspace-not-running' && code !== 'agent-not-connected') throw error;
      const workspace = await client.call(getWorkspace, { params });
      if (workspace.status === 'running') {
        // It is running and its agent is reconnecting, but that can fail.
        if (performance.now() > until) throw error;
        await delay(250, undefined, { signal: context.signal });
        continue;
      }
      if (started) throw error;
      started = await startIfNeeded(context, client, reference, workspace, start);
    }
  }
}

/** It goes into ssh's options, as a login name and nothing else. */
function requireUsername(name: string): void {
  if (/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\$?$/.test(name)) return;
  throw new Failure('not-a-cde-server', 'The server gives a login name in a form that is not cde’s.', {
    exitCode: exitCodes.unreachable,
    detail: JSON.stringify(name.slice(0, 200)),
    hint: 'Check the address of the server.',
  });
}

/** Starts a stopped workspace for a person who connects, who is asked by `ask` unless its owner has chosen to start it. */
export async function startWorkspaceFor(
  context: Context,
  reference: string,
  ask: (question: string) => Promise<boolean>,
): Promise<void> {
  const client = await context.client({ patienceMs: serverPatienceMs });
  const workspace = await client.call(getWorkspace, { params: { workspace: pathRef(reference) } });
  if (workspace.status !== 'running') await startIfNeeded(context, client, reference, workspace, { ask });
}

/** Waits for a build in progress and starts a stopped workspace. True if it started one. */
async function startIfNeeded(
  context: Context,
  client: Client,
  reference: string,
  workspace: Workspace,
  start: Start,
): Promise<boolean> {
  const { waitForBuild, followPatienceMs } = await import('../builds/follow.ts');
  const patient = await context.client({ patienceMs: followPatienceMs });
  const { latestBuild, status } = workspace;
  const inProgress = latestBuild && !latestBuild.finishedAt ? latestBuild : null;
  if (inProgress && workspace.desired !== 'running' && !start) throw notRunning(reference, workspace);
  if (inProgress && (workspace.desired === 'running' || start === true)) {
    await waitForBuild(context, patient, reference, inProgress);
    return false;
  }
  if (!start || status === 'deleting' || status === 'deleted') throw notRunning(reference, workspace);
  if (start !== true) await requireStart(client, reference, workspace, start.ask);
  // It is stopping.
  if (inProgress) await waitForBuild(context, patient, reference, inProgress);
  const build = await client.call(startWorkspace, {
    params: { workspace: pathRef(reference) },
    idempotencyKey: randomUUID(),
  });
  if (!build.finishedAt) await waitForBuild(context, patient, reference, build);
  return true;
}

/** Errors that a new ticket can resolve: the agent or a satellite has restarted since the old one. */
const transient = new Set([
  'agent-not-connected',
  'agent-lost',
  'ticket-wrong-agent',
  'agent-key-mismatch',
  'ticket-expired',
  'satellite-restarted',
  'satellite-draining',
  'satellite-overloaded',
  'satellite-lost',
  'session-timeout',
]);

export interface OpeningOptions {
  start?: Start;
  onPath?: SessionOptions['onPath'];
  /** The kind of path to take, or, with `auto`, the best that is allowed. */
  path?: PathChoice;
  /** Told of each choice and change of the path. */
  onChange?: SessionOptions['onChange'];
  /** Told why the session was interrupted, once it continues. */
  onIncident?: ((incident: ToldIncident) => void) | undefined;
}

/** A choice or change of the path, for `--verbose`. */
export const pathNote = (change: PathChange): string => `cde: ${describeChange(change)}`;

const pathChoices = ['auto', 'relay', 'direct-tcp', 'direct-udp'] as const;
export type PathChoice = (typeof pathChoices)[number];

/** The kinds that a session may take. Throws `path-forbidden`. */
function kindsFor(path: PathChoice, { paths = ['relay'], workspace }: Opening): PathKind[] {
  if (path === 'auto') return paths;
  if (paths.includes(path)) return [path];
  throw new Failure('path-forbidden', `Paths of the kind ${path} are forbidden for ${workspace}.`, {
    exitCode: exitCodes.permission,
    detail: `Allowed: ${paths.join(', ')}.`,
    hint: 'Connect without --path, or ask an administrator.',
  });
}

/**
 * Opens a session, with the opening given or one of its own; tries again with a fresh ticket where that may
 * help. The session outlives its path (`onPath` tells of that) as long as the server lets it.
 */
export async function openWorkspaceSession(
  context: Context,
  reference: string,
  given: Opening | null,
  { start = false, onPath, path = 'auto', onChange, onIncident }: OpeningOptions = {},
): Promise<{ session: Session; opening: Opening }> {
  // Loaded while the ticket is on its way.
  collectBuffersEarly({ smallNewSpace: true, smallHeap: true });
  const loading = import('@cde/tunnel/session/session.ts');
  releaseNativeWhenUnused();
  const until = performance.now() + agentPatienceMs;
  for (let opening = given; ; opening = null) {
    opening ??= await makeOpening(context, reference, start);
    const good = opening;
    const paths = kindsFor(path, good);
    const { openSession } = await loading;
    let recording: SessionRecording | undefined;
    try {
      const session = await openSession({
        ...good,
        signal: context.signal,
        async renewTicket() {
          try {
            const renewed = await renewTicket(context, reference, good.clientPrivateKey);
            recording?.serverAnswered(true);
            return renewed;
          } catch (error) {
            recording?.serverAnswered(error instanceof TunnelError);
            throw error;
          }
        },
        // With one satellite there is nothing to remember.
        steer: { paths, ...(good.satellites.length > 1 && { book: rttBook(context.env) }) },
        ...(onPath && { onPath }),
        onChange(change) {
          recording?.changed(change);
          onChange?.(change);
        },
      });
      recording = recordWorkspaceSession(context, reference, session, {
        nameOf: (url) => good.satellites.find((each) => each.url === url)?.name ?? url,
        addresses: good.recordedAddresses ?? 'full',
        onIncident,
      });
      return { session, opening: good };
    } catch (error) {
      if (!transient.has(toFailure(error).code) || performance.now() > until) throw error;
      await delay(250, undefined, { signal: context.signal });
    }
  }
}

/** The environment that hands an opening from `cde ssh` to the `cde ssh --stdio` beneath its ssh. */
export function makeHandover(reference: string, opening: Opening): Record<string, string> {
  const key = opening.clientPrivateKey.export({ type: 'pkcs8', format: 'der' }).toString('base64url');
  return { [openingVariable]: JSON.stringify({ reference, opening: { ...opening, clientPrivateKey: key } }) };
}

/** Reads the opening of `makeHandover`. Null if it is for another workspace, has expired or cannot be read. */
export function readOpening(text: string, reference: string): Opening | null {
  try {
    const given = JSON.parse(text) as {
      reference: string;
      opening: Omit<Opening, 'clientPrivateKey'> & { clientPrivateKey: string };
    };
    if (given.reference !== reference || Date.parse(given.opening.expiresAt) < Date.now() + 5_000)
      return null;
    const key = Buffer.from(given.opening.clientPrivateKey, 'base64url');
    return {
      ...given.opening,
      clientPrivateKey: createPrivateKey({ key, type: 'pkcs8', format: 'der' }),
    };
  } catch {
    return null; // Not ours, or of another version: the caller requests its own ticket.
  }
}
