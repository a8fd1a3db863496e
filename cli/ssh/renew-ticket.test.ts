import { createTicket, getWorkspace } from '@cde/api/workspaces.ts';
import { makeClientKey } from '@cde/tunnel/auth/keys.ts';
import { TunnelError } from '@cde/tunnel/errors.ts';
import { expect, test } from 'vitest';
import { openClient } from '../connection/connection.ts';
import { toFailure } from '../failure/failure.ts';
import { Refusal, startFakeServer } from '../testing/cli.ts';
import { workspace } from '../testing/objects.ts';
import { renewTicket } from './renew-ticket.ts';

const { server } = await startFakeServer();
const { privateKey } = makeClientKey();
const { signal } = new AbortController();
const client = async () => openClient({ url: server.url, token: 'cde_stand-in', signal });
/** Whether the session ends or retries, and with which code. */
async function renew(): Promise<string> {
  const error = await renewTicket({ client }, 'web', privateKey).catch((reason) => reason);
  return `${error instanceof TunnelError ? 'ends' : 'retries'}: ${toFailure(error).code}`;
}

test.each([
  ['stopping', 'retries: workspace-not-running'],
  ['running', 'retries: workspace-not-running'],
  ['stopped', 'ends: workspace-stopped'],
  ['deleting', 'ends: workspace-stopped'],
] as const)('no ticket for a workspace that is %s: the session %s', async (status, outcome) => {
  refuse(409, 'workspace-not-running');
  server.on(getWorkspace, () => workspace({ status }));
  expect(await renew()).toBe(outcome);
});

test('no ticket, and the server does not say what the workspace does: the session retries', async () => {
  refuse(409, 'workspace-not-running');
  server.on(getWorkspace, () => {
    throw new Refusal(503, { code: 'server-busy', message: 'The server is busy.' });
  });
  expect(await renew()).toBe('retries: server-busy');
});

test.each([
  [401, 'sign-in-required', 'ends: ticket-refused'],
  [404, 'workspace-not-found', 'ends: ticket-refused'],
  [409, 'agent-not-connected', 'retries: agent-not-connected'],
  [503, 'server-busy', 'retries: server-busy'],
])('status %i with %s: the session %s', async (status, code, outcome) => {
  refuse(status, code);
  expect(await renew()).toBe(outcome);
});

function refuse(status: number, code: string): void {
  server.on(createTicket, () => {
    throw new Refusal(status, { code, message: 'There is no ticket.' });
  });
}
