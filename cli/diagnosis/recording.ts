import { randomUUID } from 'node:crypto';
import { CallError } from '@cde/api/client.ts';
import type { ClientEvent, ClientWindow } from '@cde/api/diagnosis.ts';
import { type IncidentKind, maxReportAgeMs } from '@cde/api/diagnosis-values.ts';
import { type AddressPolicy, withKeptAddresses } from '@cde/api/recorded-addresses.ts';
import type { Recorded, Recorder } from '@cde/tunnel/recording/recorder.ts';
import type { PathChange } from '@cde/tunnel/selection/history.ts';
import type { Session } from '@cde/tunnel/session/session.ts';
import type { Context } from '../command/context.ts';
import { ownVersion } from '../completion/version.ts';
import { postRecording } from '../connection/endpoints.ts';
import { pathRef } from '../workspaces/reference.ts';

/** What happened to a session and why, in a sentence. */
export interface ToldIncident {
  kind: IncidentKind;
  summary: string;
  advice: string | null;
}

export interface SessionRecording {
  /** Pass every change of the session's path. */
  changed(change: PathChange): void;
  /** Pass whether the server answered. */
  serverAnswered(answered: boolean): void;
}

/** A command that is done sooner is not recorded, and pays nothing. */
const startAfterMs = 2_000;
/** Samples are delivered this often while the session is used. */
const deliverEveryMs = 30_000;
/** What others report helps to explain, so the news wait for it a little. */
const newsDelayMs = 300;
/** After the session, what was not delivered is tried again while this process runs: it says why the session ended. */
const lateDeliveriesMs = [3_000, 10_000, 20_000];
/** How long a report may take. */
const postWithinMs = 6_000;
/** Without an answer of the server in this time, an incident is explained by what this machine knows. */
const explainWithinMs = 4_000;
/** Shorter ones have passed before a sentence about them is read. */
const tellAfterMs = 3_000;

/**
 * Records the session and delivers the recording to the server while it lasts. `onIncident` is given each incident that a
 * person at a terminal may wonder about, once it is over.
 */
export function recordWorkspaceSession(
  context: Context,
  reference: string,
  session: Session,
  options: {
    nameOf: (url: string) => string;
    /** How much of the addresses of direct paths may leave this machine. */
    addresses: AddressPolicy;
    onIncident?: ((incident: ToldIncident) => void) | undefined;
  },
): SessionRecording {
  const startedAt = Date.now();
  let recorder: Recorder | undefined;
  let isEnded = false;
  // A session must not suffer from being recorded.
  const timer = setTimeout(() => void start().catch(() => {}), startAfterMs);
  timer.unref();
  void session.closed.then(() => {
    isEnded = true;
    clearTimeout(timer);
  });

  async function start(): Promise<void> {
    const { recordSession } = await import('@cde/tunnel/recording/recorder.ts');
    if (isEnded) return;
    const news = () => void setTimeout(() => delivery?.now(), newsDelayMs).unref();
    const started = await recordSession(session, { onNews: news });
    const delivery = makeDelivery(context, reference, started, { ...options, startedAt });
    recorder = started;
    void session.closed.then(() => delivery.end());
  }

  return {
    changed: (change) => recorder?.changed(change),
    serverAnswered: (answered) => recorder?.serverAnswered(answered),
  };
}

function makeDelivery(
  context: Context,
  reference: string,
  recorder: Recorder,
  options: Parameters<typeof recordWorkspaceSession>[3] & { startedAt: number },
) {
  const id = randomUUID();
  const told = new Set<string>();
  /** The recent past, to explain it without the server. */
  let recent: Recorded = { windows: [], events: [] };
  /** What the server may not have stored yet: repeated under its number, so that it is stored once. */
  let undelivered: { number: number; recorded: Recorded } | undefined;
  let lastNumber = 0;
  let isRefused = false;
  let running: Promise<void> = Promise.resolve();
  const timer = setInterval(() => void now(), deliverEveryMs).unref();

  function now(): Promise<void> {
    running = running.then(deliver).catch(() => {});
    return running;
  }

  async function deliver(): Promise<void> {
    if (isRefused) return;
    if (undelivered && !(await post(undelivered))) return;
    const recorded = recorder.take();
    if (!recorded) return;
    const { windows, events } = recorded;
    recent = {
      windows: [...recent.windows, ...windows].slice(-60),
      events: [...recent.events, ...events].slice(-50),
    };
    undelivered = { number: ++lastNumber, recorded };
    const explained = post(undelivered);
    const inTime = await Promise.race([explained, after(explainWithinMs)]);
    if (inTime) inTime.forEach(tell);
    else await tellByOurselves();
    // The next batch follows this one.
    await explained;
  }

  /** Null: the server did not take it. */
  async function post({ number, recorded }: { number: number; recorded: Recorded }) {
    const sentAt = Date.now();
    const aged = <T extends { at: number }>(all: T[]) =>
      all.flatMap(({ at, ...rest }) =>
        sentAt - at > maxReportAgeMs ? [] : [{ ...rest, agoMs: Math.max(0, sentAt - at) }],
      );
    try {
      const client = await context.client();
      const { incidents } = await client.call(postRecording, {
        // A connection that died with a network would hold up all reports until it is given up.
        signal: AbortSignal.timeout(postWithinMs),
        params: { workspace: pathRef(reference) },
        body: {
          id,
          batch: number,
          startedAgoMs: Math.max(0, sentAt - options.startedAt),
          client: { version: ownVersion(), platform: process.platform },
          windows: withKeptAddresses(aged(recorded.windows) as ClientWindow[], options.addresses),
          events: withKeptAddresses(aged(recorded.events) as ClientEvent[], options.addresses),
        },
      });
      undelivered = undefined;
      recorder.serverAnswered(true);
      return incidents.filter(({ endedAt }) => endedAt !== null);
    } catch (error) {
      const status = error instanceof CallError ? error.status : 0;
      // It may be active again soon.
      if (error instanceof CallError && error.body.code === 'user-suspended') return null;
      // A server of an earlier release, or one that does not let us.
      if (status >= 400 && status < 500 && status !== 408 && status !== 429) isRefused = true;
      else recorder.serverAnswered(false);
      return null;
    }
  }

  async function tellByOurselves(): Promise<void> {
    if (!options.onIncident) return;
    const [{ findIncidents }, { nothingKnown }] = await Promise.all([
      import('@cde/diagnosis/incidents.ts'),
      import('@cde/diagnosis/evidence.ts'),
    ]);
    const found = findIncidents({
      ...nothingKnown,
      nameOf: options.nameOf,
      session: { startedAt: options.startedAt, knownUntil: Date.now(), ...recent },
    });
    for (const { from, to, ...incident } of found)
      if (to !== null)
        tell({ ...incident, at: new Date(from).toISOString(), endedAt: new Date(to).toISOString() });
  }

  function tell(incident: ToldIncident & { at: string; endedAt: string | null }): void {
    const ms = Date.parse(incident.endedAt!) - Date.parse(incident.at);
    // Its time is the server's or this machine's, which differ.
    const key = `${incident.kind} ${Math.round(ms / 1000)}`;
    const isFelt = incident.kind === 'drop' || incident.kind === 'stall';
    if (!isFelt || ms < tellAfterMs || told.has(key)) return;
    told.add(key);
    options.onIncident?.(incident);
  }

  return {
    now,
    async end() {
      clearInterval(timer);
      await now();
      for (const ms of lateDeliveriesMs) {
        if (!undelivered || isRefused) return;
        await after(ms);
        await now();
      }
    },
  };
}

const after = (ms: number) => new Promise<null>((resolve) => setTimeout(resolve, ms, null).unref());
