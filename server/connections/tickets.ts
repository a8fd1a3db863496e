import { Problem } from '@cde/api/problem.ts';
import type { AddressPolicy } from '@cde/api/recorded-addresses.ts';
import type { TicketReply } from '@cde/api/workspaces.ts';
import { importPublicKey } from '@cde/tunnel/auth/keys.ts';
import { v7 } from 'uuid';
import type { Database } from '../database/pool.ts';
import type { UserActor } from '../http/actor.ts';
import type { Keys } from '../identity/keys.ts';
import type { ConnectionPolicy } from '../satellites/policy.ts';
import type { SatelliteRegistry } from '../satellites/registry.ts';
import { canHaveAgent } from '../workspaces/statuses.ts';
import { findWorkspace } from '../workspaces/store.ts';

/** Enough for a slow handshake and a few retries. */
const ticketLifetimeMs = 5 * 60_000;

export interface TicketDeps {
  database: Database;
  keys: Keys;
  now: () => Date;
  satellites: SatelliteRegistry['forClients'];
  policy: ConnectionPolicy;
  recordedAddresses: AddressPolicy;
}

/** Issues tickets for a workspace's current agent, bound to the client's key. */
export function makeTickets({ database, keys, now, satellites, policy, recordedAddresses }: TicketDeps) {
  /** `limits` is for a satellite that serves a browser: the ticket opens only these targets, and only through that satellite. */
  return async function issue(
    actor: UserActor,
    ref: string,
    clientKey: string,
    limits?: { only: string[]; satellite: string },
  ): Promise<TicketReply> {
    const { row, owner } = await findWorkspace(database.db, actor, ref, 'workspace:connect');
    const workspace = `${owner}/${row.name}`;
    if (!canHaveAgent(row.status))
      throw new Problem('workspace-not-running', `${workspace} is ${row.status}.`, {
        actions: [{ kind: 'start-workspace', workspace }],
      });
    if (row.agentTlsKey === null || row.agentSshHostKey === null)
      throw new Problem('agent-not-connected', `The agent of ${workspace} has not connected yet.`, {
        detail: row.status === 'failed' ? (row.reason ?? undefined) : `The workspace is ${row.status}.`,
        actions: [{ kind: 'read-build-log', workspace }],
        retryAfter: 1,
      });
    // The agent would reject it too, but later and with a less helpful error.
    if (!isEd25519(clientKey))
      throw new Problem('bad-request', "The client's key is not an Ed25519 public key (SPKI, base64url).");
    const allowed = await policy.forBuild(row.agentBuildId);
    const { regions } = allowed;
    const paths = limits ? allowed.paths.filter((kind) => kind === 'relay') : allowed.paths;
    if (paths.length === 0)
      throw new Problem('path-none-allowed', `No path is allowed for sessions with ${workspace}.`, {
        detail: limits
          ? 'Browsers need the relay path, which the server or the template does not allow.'
          : 'The server allows none of the paths that the template allows.',
        hint: "Ask an administrator to change the server's --paths or the template's connection.paths.",
      });
    const locations = (await satellites(regions)).filter(({ name }) => !limits || name === limits.satellite);
    if (locations.length === 0)
      throw new Problem('satellite-none-allowed', `No satellite is allowed for sessions with ${workspace}.`, {
        detail: limits
          ? `The template allows the regions ${regions?.join(', ') ?? 'of other satellites'}, and ${limits.satellite} is in none of them.`
          : `The template allows the regions ${regions?.join(', ')}, and no satellite there is online.`,
        hint: 'Ask an administrator.',
        actions: [{ kind: 'list-satellites' }],
        retryAfter: 5,
      });
    const measured = row.agentStats?.satellites ?? [];
    const exp = Math.floor((now().getTime() + ticketLifetimeMs) / 1000);
    const ticket = await keys.tickets.signTicket({
      workspaceId: row.id,
      userId: actor.userId,
      agentKey: row.agentTlsKey,
      clientKey,
      satellites: locations.map(({ name }) => name),
      paths,
      ...(limits && { only: limits.only }),
      jti: v7(),
      exp,
    });
    return {
      ticket,
      expiresAt: new Date(exp * 1000).toISOString(),
      workspaceId: row.id,
      workspace,
      agentKey: row.agentTlsKey,
      sshHostKey: row.agentSshHostKey,
      username: owner,
      satellites: locations.map(({ id: _, ...location }) => ({
        ...location,
        // The agent may know the embedded satellite by another address, and then tells the client within the session.
        agentRttMs: measured.find(({ url }) => url === location.url)?.rttMs ?? null,
      })),
      paths,
      recordedAddresses,
    };
  };
}

function isEd25519(spki: string): boolean {
  try {
    return importPublicKey(spki).asymmetricKeyType === 'ed25519';
  } catch {
    return false;
  }
}

export type Tickets = ReturnType<typeof makeTickets>;
