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

/** Holds a session's current ticket and renews it. */
export interface TicketHolder {
  readonly ticket: string;
  readonly satellites: readonly TicketSatellite[];
  /**
   * Gets a fresh ticket; concurrent calls share one request. Rejects with a TunnelError if the session cannot continue
   * (`agent-restarted`, or the error of `renewTicket`). Other errors are temporary.
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
