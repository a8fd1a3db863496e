import { isDeepStrictEqual } from 'node:util';
import { Problem } from '@cde/api/problem.ts';
import type { Satellite, SatelliteCondition, SatelliteLoad, SatelliteWeb } from '@cde/api/satellites.ts';
import { and, asc, eq, gt, inArray, isNotNull, ne, or } from 'drizzle-orm';
import { v7 } from 'uuid';
import type { Database } from '../database/pool.ts';
import { satellites } from '../database/schema.ts';
import type { Caller, UserActor } from '../http/actor.ts';
import { isUuid } from '../http/cursor.ts';
import { writeAudit } from '../identity/audit/audit.ts';
import { hashSecret, makeSecret } from '../identity/secrets.ts';
import { recordConnectionEvent, recordSatelliteWindow } from '../telemetry/connection-events.ts';

export const heartbeatEveryMs = 15_000;
/** Two heartbeats may be lost. */
const unreachableAfterMs = 45_000;
/**
 * How long an unreachable satellite stays listed, as the last choice: it may still serve sessions if only its
 * connection to the server is down, or the server was.
 */
const delistedAfterMs = 600_000;

type Row = typeof satellites.$inferSelect;

function stateOf(row: Row, now: Date): Satellite['state'] {
  if (row.seenAt === null) return 'new';
  if (now.getTime() - row.seenAt.getTime() > unreachableAfterMs) return 'away';
  if (row.condition === 'stopping') return 'stopping';
  if (row.draining) return row.condition === 'drained' ? 'drained' : 'draining';
  return row.condition === 'serving' ? 'online' : 'draining';
}

/** What the satellite serves to browsers; null if it does not serve them. */
export const webSettings = (row: Pick<Row, 'web' | 'portHost'>): SatelliteWeb | null =>
  row.web ? { portHost: row.portHost } : null;

/** A satellite as the contract shows it. */
function toSatellite(row: Row, now: Date): Satellite {
  const state = stateOf(row, now);
  return {
    id: row.id,
    name: row.name,
    region: row.region,
    state,
    url: row.url,
    stun: row.stun,
    version: row.version,
    hostname: row.hostname,
    load: state === 'away' ? null : row.load,
    draining: row.draining,
    web: webSettings(row),
    seenAt: row.seenAt?.toISOString() ?? null,
    createdAt: row.createdAt.toISOString(),
  };
}

/** A satellite that can serve browsers. */
export interface WebSatellite {
  id: string;
  name: string;
  region: string;
  url: string;
  portHost: string | null;
}

/** The SQL for satellites. `now` is the server's clock. */
export function makeSatelliteStore({
  database,
  now,
  ownPortHost = null,
}: {
  database: Database;
  now: () => Date;
  /** The server's own wildcard name for ports. */
  ownPortHost?: string | null;
}) {
  const { db } = database;
  const matchesRef = (ref: string) =>
    isUuid(ref) ? or(eq(satellites.id, ref), eq(satellites.name, ref)) : eq(satellites.name, ref);
  const notFound = (ref: string) =>
    new Problem('satellite-not-found', `There is no satellite ${ref}.`, {
      actions: [{ kind: 'list-satellites' }],
    });

  return {
    async list(): Promise<Satellite[]> {
      const rows = await db.select().from(satellites).orderBy(asc(satellites.name));
      return rows.map((row) => toSatellite(row, now()));
    },

    async show(ref: string): Promise<Satellite> {
      const [row] = await db.select().from(satellites).where(matchesRef(ref));
      if (!row) throw notFound(ref);
      return toSatellite(row, now());
    },

    /** Throws `satellite-name-taken`. The token is in the reply and nowhere else. */
    async add(
      caller: Caller<UserActor>,
      { name, region }: { name: string; region: string },
    ): Promise<{ token: string; satellite: Satellite }> {
      const token = makeSecret('cde_satellite');
      return db.transaction(async (tx) => {
        const [row] = await tx
          .insert(satellites)
          .values({ id: v7(), name, region, tokenHash: hashSecret(token), createdAt: now() })
          .onConflictDoNothing({ target: satellites.name })
          .returning();
        if (!row)
          throw new Problem('satellite-name-taken', `A satellite named ${name} already exists.`, {
            hint: 'Choose another name, or remove that satellite first.',
            actions: [{ kind: 'list-satellites' }],
          });
        await writeAudit(tx, caller, {
          action: 'satellite.add',
          targetType: 'satellite',
          targetId: row.id,
          targetName: name,
          after: { region },
        });
        return { token, satellite: toSatellite(row, now()) };
      });
    },

    async setDraining(caller: Caller<UserActor>, ref: string, draining: boolean): Promise<Satellite> {
      return db.transaction(async (tx) => {
        const [before] = await tx.select().from(satellites).where(matchesRef(ref)).for('update');
        if (!before) throw notFound(ref);
        if (before.draining === draining) return toSatellite(before, now());
        const [row] = await tx
          .update(satellites)
          .set({ draining })
          .where(eq(satellites.id, before.id))
          .returning();
        if (draining)
          await recordConnectionEvent(tx, {
            ...{ kind: 'satellite-draining', at: now(), satellite: before.name },
          });
        await writeAudit(tx, caller, {
          action: 'satellite.drain',
          targetType: 'satellite',
          targetId: before.id,
          targetName: before.name,
          before: { draining: before.draining },
          after: { draining },
        });
        return toSatellite(row!, now());
      });
    },

    /** Throws `port-host-taken`. */
    async setWeb(caller: Caller<UserActor>, ref: string, web: SatelliteWeb | null): Promise<Satellite> {
      const portHost = web?.portHost ?? null;
      return db.transaction(async (tx) => {
        const [before] = await tx.select().from(satellites).where(matchesRef(ref)).for('update');
        if (!before) throw notFound(ref);
        const was = webSettings(before);
        if (isDeepStrictEqual(was, web)) return toSatellite(before, now());
        const taken =
          portHost === null || portHost === ownPortHost
            ? []
            : await tx
                .select({ name: satellites.name })
                .from(satellites)
                .where(and(eq(satellites.portHost, portHost), ne(satellites.id, before.id)));
        if (portHost !== null && (portHost === ownPortHost || taken.length > 0))
          throw new Problem('port-host-taken', `${portHost} is already in use.`, {
            detail: `It belongs to ${taken[0]?.name ?? 'the server itself (--port-host)'}.`,
            hint: `Give each its own name, for example *.${before.name}.${portHost.slice(2)}, with a certificate for it.`,
          });
        const [row] = await tx
          .update(satellites)
          .set({ web: web !== null, portHost })
          .where(eq(satellites.id, before.id))
          .returning();
        await writeAudit(tx, caller, {
          action: 'satellite.web',
          targetType: 'satellite',
          targetId: before.id,
          targetName: before.name,
          before: { web: was },
          after: { web },
        });
        return toSatellite(row!, now());
      });
    },

    async remove(caller: Caller<UserActor>, ref: string): Promise<void> {
      await db.transaction(async (tx) => {
        const [row] = await tx.delete(satellites).where(matchesRef(ref)).returning();
        if (!row) throw notFound(ref);
        await writeAudit(tx, caller, {
          action: 'satellite.remove',
          targetType: 'satellite',
          targetId: row.id,
          targetName: row.name,
          before: { region: row.region, url: row.url },
        });
      });
    },

    /**
     * Records that a satellite has started at this address; null if it was removed meanwhile. Templates pin sessions to
     * regions, so an administrator decides the region; a satellite added without one sets it when it first registers.
     * Throws `satellite-region-fixed` if it names another.
     */
    async register(
      id: string,
      registration: {
        url: string;
        stun: string | null;
        version: string;
        hostname: string;
        region?: string | undefined;
      },
    ): Promise<Row | null> {
      const { region } = registration;
      const sameRegion = region === undefined ? undefined : inArray(satellites.region, ['', region]);
      const [row] = await db
        .update(satellites)
        .set({
          url: registration.url.replace(/\/+$/, ''),
          stun: registration.stun,
          version: registration.version,
          hostname: registration.hostname,
          condition: 'serving',
          seenAt: now(),
          ...(region !== undefined && { region }),
        })
        .where(and(eq(satellites.id, id), sameRegion))
        .returning();
      if (row) {
        await recordConnectionEvent(db, { kind: 'satellite-started', at: now(), satellite: row.name });
        return row;
      }
      const [before] = await db.select().from(satellites).where(eq(satellites.id, id));
      if (!before) return null;
      throw new Problem('satellite-region-fixed', `The satellite ${before.name} is in another region.`, {
        detail: `It is in ${before.region}, but was started with --region ${region}.`,
        hint: 'Start it without --region, or remove it and add it again in the other region.',
      });
    },

    async heartbeat(
      id: string,
      report: { condition: SatelliteCondition; version: string; load: SatelliteLoad },
    ): Promise<Row | null> {
      const [row] = await db
        .update(satellites)
        .set({ condition: report.condition, version: report.version, load: report.load, seenAt: now() })
        .where(eq(satellites.id, id))
        .returning();
      if (row)
        await recordSatelliteWindow(db, {
          satellite: row.name,
          now: now(),
          ms: heartbeatEveryMs,
          loopDelayMs: report.load.loopDelayMs,
        });
      return row ?? null;
    },

    /** The satellite, if it can serve browsers and has registered. */
    async findWebSatellite(id: string): Promise<WebSatellite | null> {
      const [row] = await db
        .select()
        .from(satellites)
        .where(and(eq(satellites.id, id), eq(satellites.web, true), isNotNull(satellites.url)));
      return row ? { id, name: row.name, region: row.region, url: row.url!, portHost: row.portHost } : null;
    },

    /** The satellites that serve browsers, or did until ten minutes ago. */
    async listWebSatellites(): Promise<WebSatellite[]> {
      const rows = await db
        .select()
        .from(satellites)
        .where(
          and(
            eq(satellites.web, true),
            eq(satellites.draining, false),
            eq(satellites.condition, 'serving'),
            isNotNull(satellites.url),
            gt(satellites.seenAt, new Date(now().getTime() - delistedAfterMs)),
          ),
        )
        .orderBy(asc(satellites.name));
      return rows.map(({ id, name, region, url, portHost }) => ({ id, name, region, url: url!, portHost }));
    },

    /** The satellites that agents and clients can use, those with a recent heartbeat first. */
    async listServing(): Promise<{ id: string; name: string; url: string; region: string; stun?: string }[]> {
      const at = now().getTime();
      const rows = await db
        .select()
        .from(satellites)
        .where(
          and(
            eq(satellites.draining, false),
            eq(satellites.condition, 'serving'),
            isNotNull(satellites.url),
            gt(satellites.seenAt, new Date(at - delistedAfterMs)),
          ),
        )
        .orderBy(asc(satellites.name));
      const isLate = (row: Row) => Number(at - row.seenAt!.getTime() > unreachableAfterMs);
      return rows
        .sort((a, b) => isLate(a) - isLate(b))
        .map(({ id, name, url, region, stun }) => ({
          id,
          name,
          url: url!,
          region,
          ...(stun !== null && { stun }),
        }));
    },
  };
}

export type SatelliteStore = ReturnType<typeof makeSatelliteStore>;
