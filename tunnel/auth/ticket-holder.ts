import type { TicketReply } from '@cde/api/workspaces.ts';
import { TunnelError } from '../errors.ts';

/** A satellite as tickets name it. */
export interface TicketSatellite {
  name: string;
  url: string;
  /** The agent's round trip to it, if known. */
  agentRttMs?: number | null | undefined;
  /** HOST:PORT of its STUN server. */
  stun?: string | undefined;
}

export type Ticket = Pick<TicketReply, 'ticket' | 'agentKey'> & {
  satellites: readonly TicketSatellite[];
};

/** The ticket of a session, renewed as often as the one at hand may not do. */
export interface TicketHolder {
  readonly ticket: string;
  readonly satellites: readonly TicketSatellite[];
  /**
   * Gets a fresh one; calls at the same time share it. Rejects with a TunnelError where the session cannot go on:
   * `agent-restarted`, or what `renewTicket` says. After any other error it may be asked again.
   */
  renew(): Promise<void>;
}

export function makeTicketHolder(first: Ticket, renewTicket: () => Promise<Ticket>): TicketHolder {
  let { ticket, satellites } = first;
  let pending: Promise<void> | undefined;

  async function renew(): Promise<void> {
    const fresh = await renewTicket();
    if (fresh.agentKey !== first.agentKey) throw new TunnelError('agent-restarted');
    ({ ticket, satellites } = fresh);
  }

  return {
    get ticket() {
      return ticket;
    },
    get satellites() {
      return satellites;
    },
    renew() {
      pending ??= renew().finally(() => {
        pending = undefined;
      });
      return pending;
    },
  };
}
