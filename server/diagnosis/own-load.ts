import { embeddedSatellite } from '@cde/tunnel/auth/ticket.ts';
import type { Database } from '../database/pool.ts';
import { heartbeatEveryMs } from '../satellites/store.ts';
import { recordSatelliteWindow } from '../telemetry/connection-events.ts';

const tickMs = 1_000;
/** A process that did not run for this long is recorded at once: sessions through it were interrupted. */
const frozenMs = 2_000;

/**
 * Records how late this server handles what arrives, as satellites report it of themselves: sessions run through the one in it,
 * too. `tick` is called every second.
 */
export function makeOwnLoad(deps: {
  database: Pick<Database, 'db'>;
  /** The URL under which clients reach the satellite in this server. */
  url: string;
  satelliteNames: () => Promise<ReadonlyMap<string, string>>;
  now: () => Date;
}) {
  const { database, url, satelliteNames, now } = deps;
  let tickedAt = now().getTime();
  let recordedAt = tickedAt;
  let latest = 0;

  return {
    async tick(): Promise<void> {
      const at = now().getTime();
      const lateMs = Math.max(0, at - tickedAt - tickMs);
      tickedAt = at;
      latest = Math.max(latest, lateMs);
      if (lateMs < frozenMs && at - recordedAt < heartbeatEveryMs) return;
      const window = { ms: Math.max(1, at - recordedAt), loopDelayMs: latest };
      recordedAt = at;
      latest = 0;
      const satellite = (await satelliteNames()).get(url) ?? embeddedSatellite;
      await recordSatelliteWindow(database.db, { satellite, now: new Date(at), ...window });
    },
  };
}

export const ownLoadEveryMs = tickMs;
