import {
  type IncidentCause,
  type IncidentKind,
  incidentCauses,
  type Segment,
} from '@cde/api/diagnosis-values.ts';
import { adviceFor } from './advice.ts';
import type { Evidence } from './evidence.ts';
import { type Rule, span, sure, trip, type Verdict } from './rule.ts';
import { agentRestarted } from './rules/agent-restarted.ts';
import { clientNetworkChanged } from './rules/client-network-changed.ts';
import { clientNetworkLossy } from './rules/client-network-lossy.ts';
import { clientOverloaded } from './rules/client-overloaded.ts';
import { clientSlept } from './rules/client-slept.ts';
import { nodeLost } from './rules/node-lost.ts';
import { proxyInterference } from './rules/proxy-interference.ts';
import { satelliteAgentNetwork } from './rules/satellite-agent-network.ts';
import { satelliteOverloaded } from './rules/satellite-overloaded.ts';
import { satelliteRestarted } from './rules/satellite-restarted.ts';
import { serverUnreachable } from './rules/server-unreachable.ts';
import { ticketExpired } from './rules/ticket-expired.ts';
import { udpBlocked } from './rules/udp-blocked.ts';
import { workspaceCpuStarved } from './rules/workspace-cpu-starved.ts';
import { workspaceOutOfMemory } from './rules/workspace-out-of-memory.ts';
import { workspaceStopped } from './rules/workspace-stopped.ts';
import { findSpells, type Spell, spanOfSpell } from './spells.ts';

/** The order decides between two that are equally sure: what is more specific comes first. */
export const rules: readonly Rule[] = [
  ticketExpired,
  clientSlept,
  workspaceOutOfMemory,
  nodeLost,
  workspaceStopped,
  satelliteRestarted,
  clientNetworkChanged,
  agentRestarted,
  satelliteOverloaded,
  serverUnreachable,
  udpBlocked,
  proxyInterference,
  workspaceCpuStarved,
  satelliteAgentNetwork,
  clientOverloaded,
  clientNetworkLossy,
];

/** What went wrong in a session and why. Moments are Unix times in milliseconds. */
export interface FoundIncident {
  from: number;
  to: number | null;
  kind: IncidentKind;
  cause: IncidentCause;
  segment: Segment;
  confidence: number;
  /** The satellite's name, or the kind of direct path. */
  path: string | null;
  summary: string;
  evidence: string[];
  ruledOut: string[];
  advice: string | null;
}

/** Finds the incidents of a session and names the cause of each, oldest first. */
export function findIncidents(evidence: Evidence): FoundIncident[] {
  return findSpells(evidence.session).map((spell) => explain(spell, evidence));
}

function explain(spell: Spell, evidence: Evidence): FoundIncident {
  let best: { cause: IncidentCause; verdict: Verdict } | undefined;
  for (const rule of rules) {
    const verdict = rule.judge(spell, evidence);
    if (verdict && verdict.confidence > (best?.verdict.confidence ?? 0))
      best = { cause: rule.cause, verdict };
  }
  const named = best && best.verdict.confidence >= sure.named ? best : undefined;
  const cause = named?.cause ?? 'unknown';
  return {
    from: spell.from,
    to: spell.to,
    kind: spell.kind,
    cause,
    segment: incidentCauses[cause],
    confidence: named?.verdict.confidence ?? 0,
    path: spell.path && nameOfPath(spell.path, evidence),
    summary: summarize(spell, evidence, named?.verdict.because ?? 'the cause is unknown'),
    evidence: named?.verdict.evidence ?? [],
    ruledOut: named ? [] : rules.flatMap((rule) => rule.exclude?.(spell, evidence) ?? []),
    advice: adviceFor(cause, spell),
  };
}

const nameOfPath = ({ kind, via }: { kind: string; via: string }, { nameOf }: Evidence): string =>
  kind === 'relay' ? nameOf(via) : kind === 'direct-tcp' ? 'direct TCP' : 'direct UDP';

function summarize(spell: Spell, evidence: Evidence, because: string): string {
  const { from, to } = spanOfSpell(spell, evidence.session);
  const resumed = spell.resumedOn ? `; resumed through ${nameOfPath(spell.resumedOn, evidence)}` : '';
  return `${whatOf(spell, span(to - from))}: ${because}${resumed}.`;
}

function whatOf({ kind, to, rtt, stalls }: Spell, length: string): string {
  switch (kind) {
    case 'drop':
      return to === null ? `No connection for ${length} so far` : `${length} without a connection`;
    case 'stall':
      return stalls && stalls.count > 1
        ? `No answer ${stalls.count} times within ${length}, for up to ${span(stalls.longestMs)}`
        : `No answer for ${length}`;
    case 'slow':
      return `Slow for ${length} (${trip(rtt!.slowMs)} instead of ${trip(rtt!.usualMs)})`;
    case 'ended':
      return 'The session ended';
  }
}
