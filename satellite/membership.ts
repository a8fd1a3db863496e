import type {
  SatelliteCondition,
  SatelliteConfig,
  SatelliteManifest,
  SatelliteWeb,
} from '@cde/api/satellites.ts';
import type { Log } from '@cde/tunnel/log.ts';
import type { PortGateway } from './ports/gateway.ts';
import type { Relay } from './relay/relay.ts';
import type { Terminals } from './terminals/terminals.ts';

/** Sessions evicted all at once would reconnect all at once. */
export const evictWithinMs = 5_000;
const terminalsDisabled = 'This satellite does not serve terminals.';

/** What the server has told the satellite. */
export interface ServerState {
  registered: boolean;
  id: string | null;
  name: string | null;
  ticketKeys: readonly string[];
  /** What it serves to browsers; null: nothing. */
  web: SatelliteWeb | null;
  /** The origin of the pages that may open terminals. */
  dashboard: string;
}

/** Before it has registered. */
export const makeServerState = (): ServerState => ({
  registered: false,
  id: null,
  name: null,
  ticketKeys: [],
  web: null,
  dashboard: '',
});

/** Does what the server tells the satellite, and says what it does. */
export interface Membership {
  condition(): SatelliteCondition;
  registered(manifest: SatelliteManifest): void;
  /** Returns true if the condition has changed. The server directs clients by it, so it should learn of that at once. */
  apply(orders: SatelliteConfig): boolean;
  /** From now on the satellite stops by itself, and orders to drain or to serve again have no effect. */
  stop(): void;
}

export function makeMembership(options: {
  state: ServerState;
  relay: Pick<Relay, 'draining' | 'drain' | 'reopen' | 'evict' | 'endUser' | 'stats'>;
  ports: Pick<PortGateway, 'closeAll'>;
  terminals: Pick<Terminals, 'evictAll'>;
  log: Log;
}): Membership {
  const { state, relay, ports, terminals, log } = options;
  let stopping = false;

  function applySettings(told: Pick<SatelliteManifest, 'ticketKeys' | 'web' | 'dashboard'>): void {
    state.ticketKeys = told.ticketKeys;
    state.web = told.web;
    state.dashboard = told.dashboard;
    if (!told.web) terminals.evictAll(terminalsDisabled);
  }

  function applyDrain(drain: boolean): boolean {
    if (stopping || drain === relay.draining) return false;
    if (!drain) {
      log.info({}, 'serving again');
      relay.reopen();
      return true;
    }
    log.info({ sessions: relay.stats().sessions }, 'draining on request of an administrator');
    ports.closeAll();
    void relay.drain().then(() => {
      if (relay.draining && !stopping) log.info({}, 'drained: no sessions left');
    });
    relay.evict(evictWithinMs);
    return true;
  }

  return {
    condition() {
      if (stopping) return 'stopping';
      if (!relay.draining) return 'serving';
      return relay.stats().sessions === 0 ? 'drained' : 'draining';
    },
    registered(manifest) {
      applySettings(manifest);
      state.id = manifest.id ?? null;
      state.name = manifest.name;
      state.registered = true;
      log.info({ name: manifest.name, region: manifest.region }, 'satellite is registered');
      applyDrain(manifest.drain);
    },
    apply(orders) {
      applySettings(orders);
      for (const userId of orders.endUsers) relay.endUser(userId);
      return applyDrain(orders.drain);
    },
    stop() {
      stopping = true;
    },
  };
}
