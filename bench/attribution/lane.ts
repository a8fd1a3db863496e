/**
 * Plays cases in a network, process and mount namespace of its own, so that it disturbs nobody and leaves nothing behind. It gets a
 * case for each line on stdin and prints a line of JSON for each: `{ready}`, `{played}` or `{failed}`. Started by run.ts.
 */
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { recordings } from '@cde/server/database/diagnosis-schema.ts';
import { openDatabase } from '@cde/server/database/pool.ts';
import { readEvidence } from '@cde/server/diagnosis/evidence.ts';
import { and, gte, lte } from 'drizzle-orm';
import type { Case } from './cases.ts';
import { inject, prepare } from './faults.ts';
import { makeRig, type Rig } from './rig.ts';
import type { Played, RecordedEvidence, Sighting } from './score.ts';
import { makeTyping } from './typing.ts';

/** After the faults: how long the server may take to name them, and how long it is watched once it has. */
const namingMs = 40_000;
const calmMs = 4_000;
/** When agents and satellites have reported, and the server has explained everything again. */
const finalMs = 80_000;

const say = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`);

interface Listed {
  id: string;
  at: string;
  endedAt: string | null;
  kind: string;
  cause: string;
  segment: string;
  confidence: number;
  summary: string;
}
async function listIncidents(rig: Rig, since: number): Promise<Listed[]> {
  const query = new URLSearchParams({ since: new Date(since).toISOString(), limit: '100' });
  const { body } = await rig.call(rig.dev, 'GET', `/api/v1/incidents?${query}`);
  return body.items;
}

/** Notes each incident when the API lists it first, and again when it says something else of it. */
function watchIncidents(rig: Rig, since: number) {
  const sightings: Sighting[] = [];
  const last = new Map<string, string>();
  let stopped = false;
  const look = (listed: Listed[]) => {
    for (const { id, ...one } of listed.reverse()) {
      const text = JSON.stringify(one);
      if (last.get(id) === text) continue;
      last.set(id, text);
      const { at, endedAt, ...rest } = one;
      sightings.push({
        seenAt: Date.now(),
        from: Date.parse(at),
        to: endedAt === null ? null : Date.parse(endedAt),
        ...rest,
      });
    }
  };
  const done = (async () => {
    for (; !stopped; await delay(1_000)) await listIncidents(rig, since).then(look, () => {});
  })();
  return {
    sightings,
    async stop() {
      stopped = true;
      await done;
    },
  };
}

async function play(rig: Rig, one: Case): Promise<{ played: Played; final: () => Promise<Played> }> {
  await rig.repair();
  await rig.hosts.laptop.set({
    delayMs: one.link.clientMs,
    ...(one.variation === 'bulk' && { megabits: 30 }),
  });
  await rig.hosts.satellite.set({ delayMs: one.link.satelliteMs });
  const undo = await Promise.all(one.faults.map(({ fault }) => prepare(fault, rig)));
  const begunAt = Date.now();
  const typing = await makeTyping(rig, one);
  const watching = watchIncidents(rig, begunAt);
  if (one.variation === 'cpu load') undo.push(rig.load());
  let injected: Played['injected'] = [];
  let readyAt = Date.now();
  try {
    await delay(one.beforeMs);
    readyAt = Date.now();
    injected = await Promise.all(
      one.faults.map(async ({ fault, afterMs }) => {
        await delay(afterMs);
        const times = await inject(fault, { rig, place: one.satellite, ended: typing.ended });
        return { cause: fault.cause, ...times };
      }),
    );
    await delay(one.quietMs);
    const to = Math.max(...injected.map((each) => each.to));
    const isNamed = () =>
      one.faults.every(({ fault }) => watching.sightings.some((each) => each.cause === fault.cause));
    while (one.faults.length > 0 && Date.now() < to + (isNamed() ? calmMs : namingMs)) await delay(500);
  } finally {
    await watching.stop();
    await typing.end();
    for (const each of undo) each();
  }
  const endedAt = Date.now();
  const played: Played = {
    ...{ case: one, injected, begunAt, readyAt, endedAt, sightings: watching.sightings },
    echo: typing.summary(injected),
    finals: [],
    evidence: [],
  };
  return {
    played,
    async final() {
      await delay(Math.max(0, endedAt + finalMs - Date.now()));
      await rig.call(rig.admin, 'PATCH', '/api/v1/users/dev', { status: 'active' }).catch(() => {});
      const listed = await listIncidents(rig, begunAt);
      const finals = listed
        .reverse()
        .map(
          ({ at, endedAt: to, ...rest }): Sighting => ({
            seenAt: Date.now(),
            from: Date.parse(at),
            to: to === null ? null : Date.parse(to),
            ...rest,
          }),
        )
        .filter(({ from }) => from >= begunAt && from <= endedAt);
      return { ...played, finals, evidence: await readAll(rig, begunAt, endedAt) };
    },
  };
}

/** What the engine was given, to run it again without playing the case again. */
async function readAll(rig: Rig, from: number, to: number): Promise<RecordedEvidence[]> {
  const { db, close } = openDatabase(rig.postgres.url, { max: 2 });
  try {
    const rows = await db
      .select()
      .from(recordings)
      .where(and(gte(recordings.startedAt, new Date(from)), lte(recordings.startedAt, new Date(to))));
    const satelliteUrl = `http://${rig.hosts.satellite.address}:${rig.ports.satellite}`;
    const names: Record<string, string> = { [satelliteUrl]: 'own', [rig.url]: 'embedded' };
    return await Promise.all(
      rows.map(async (row) => {
        const { nameOf: _, ...evidence } = await readEvidence(db, row, {
          now: new Date(),
          nameOf: (url) => names[url] ?? url,
        });
        return { ...evidence, names };
      }),
    );
  } finally {
    await close();
  }
}

const rig = await makeRig();
say({ ready: true });
let finishing: Promise<unknown> = Promise.resolve();
for await (const line of createInterface(process.stdin)) {
  const one = JSON.parse(line) as Case;
  try {
    const { final } = await play(rig, one);
    // The next case is played meanwhile.
    finishing = Promise.all([
      finishing,
      final().then(
        (played) => say({ played }),
        (error) => say({ failed: one.id, error: String(error) }),
      ),
    ]);
    say({ next: true });
  } catch (error) {
    say({ failed: one.id, error: error instanceof Error ? (error.stack ?? error.message) : String(error) });
    say({ next: true });
  }
}
await finishing;
await rig.remove();
process.exit();
