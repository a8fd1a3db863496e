import type { PathKind } from '@cde/tunnel/pipe/path.ts';
import { findObstacles, type Obstacle } from '@cde/tunnel/selection/obstacles.ts';
import type { RoundTrip } from '@cde/tunnel/session/session.ts';
import { clean } from '../output/output.ts';
import type { OpenedSession } from '../ssh/sessions.ts';

export interface Spread {
  minMs: number;
  p50Ms: number;
  p95Ms: number;
  maxMs: number;
}

export interface PingSummary {
  workspace: string;
  sent: number;
  answered: number;
  lossPercent: number;
  /** Null if nothing was answered, or if no path had such a leg. */
  total: Spread | null;
  client: Spread | null;
  agent: Spread | null;
  /** The path of the last answer. */
  path: { kind: PathKind; via: string };
  /** The agent cannot measure its leg, so `agent` is what it last reported. */
  agentOutdated: boolean;
  obstacles: Obstacle[];
}

export interface PingRecord {
  readonly sent: number;
  /** Both return the number of the round trip. */
  answered(trip: RoundTrip): number;
  lost(): number;
  summary(opened: OpenedSession, path: string | undefined): PingSummary;
}

/** Bounds the memory of a ping that runs for days; percentiles are of the last ones. */
const maxTrips = 100_000;

export function makePingRecord(): PingRecord {
  let trips: RoundTrip[] = [];
  let sent = 0;
  let answered = 0;
  return {
    get sent() {
      return sent;
    },
    answered(trip) {
      answered++;
      if (trips.length >= maxTrips) trips = trips.slice(maxTrips / 2);
      trips.push(trip);
      return ++sent;
    },
    lost: () => ++sent,
    summary({ session, opening }, requested) {
      const { kind, via } = trips.at(-1) ?? session.path;
      const here = trips.filter((trip) => trip.kind === kind && trip.via === via);
      const allowed = opening.paths ?? ['relay'];
      const rttMs = spread(here.map(({ totalMs }) => totalMs))?.p50Ms;
      const knows = (leg: 'clientMs' | 'agentMs') => trips.flatMap((trip) => trip[leg] ?? []);
      return {
        workspace: opening.workspace,
        sent,
        answered,
        lossPercent: sent === 0 ? 0 : Math.round((1_000 * (sent - answered)) / sent) / 10,
        total: spread(trips.map(({ totalMs }) => totalMs)),
        client: spread(knows('clientMs')),
        agent: spread(knows('agentMs')),
        path: { kind, via },
        agentOutdated: trips.some(({ agentMsIs }) => agentMsIs === 'reported'),
        obstacles:
          rttMs === undefined
            ? []
            : findObstacles({
                active: { kind, rttMs },
                allowed,
                requested:
                  requested === undefined || requested === 'auto' ? allowed : [requested as PathKind],
                outlook: session.outlook(),
              }),
      };
    },
  };
}

/** By nearest rank. Null for no values. */
export function spread(values: readonly number[]): Spread | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((one, other) => one - other);
  const rank = (share: number) =>
    Math.round(sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)]! * 100) / 100;
  return { minMs: rank(0), p50Ms: rank(0.5), p95Ms: rank(0.95), maxMs: rank(1) };
}

export function summaryLines(summary: PingSummary): string[] {
  const { sent, answered, lossPercent, path, obstacles } = summary;
  const measured: [string, Spread | null][] = [
    ['round trip', summary.total],
    ['to the satellite', summary.client],
    ['satellite to agent', summary.agent],
  ];
  return [
    '',
    `${clean(summary.workspace)}: ${sent} sent, ${answered} answered, ${lossPercent} % lost`,
    ...measured.flatMap(([name, of]) => (of ? [`${name.padEnd(20)}${spreadText(of)}`] : [])),
    ...(summary.agentOutdated
      ? [
          'The agent is of an earlier release and cannot measure its leg: "satellite to agent" is what it last reported.',
          `To update it: cde restart ${clean(summary.workspace)}`,
        ]
      : []),
    '',
    ...(path.kind === 'direct-tcp'
      ? ['The path is direct by TCP: there is no better kind.']
      : obstacles.length > 0
        ? ['In the way of a better path:', ...obstacles.flatMap(obstacleLines)]
        : []),
  ];
}

const obstacleLines = ({ kind, text, fix }: Obstacle): string[] => [
  `  ${kind}: ${clean(text)}`,
  ...(fix === null ? [] : [`    → ${fix}`]),
];

const spreadText = ({ minMs, p50Ms, p95Ms, maxMs }: Spread) =>
  `min ${minMs.toFixed(1)}  p50 ${p50Ms.toFixed(1)}  p95 ${p95Ms.toFixed(1)}  max ${maxMs.toFixed(1)} ms`;
