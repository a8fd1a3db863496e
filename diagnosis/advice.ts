import type { IncidentCause } from '@cde/api/diagnosis-values.ts';
import type { Spell } from './spells.ts';

const advice: Record<IncidentCause, string | null> = {
  'client-slept': null,
  'client-overloaded': 'See which programs use the CPU of this machine.',
  'client-network-changed': null,
  'client-network-lossy':
    'Try a cable or another network. `cde netcheck` measures this one; `cde ping` shows each leg.',
  'udp-blocked': 'Nothing needs to be done: TCP is used instead. Ask for UDP to be allowed if it is slower.',
  'proxy-interference': 'Ask the operator of the proxy to allow long connections to the satellite.',
  'satellite-restarted': null,
  'satellite-overloaded': 'Tell an administrator: the region needs another satellite.',
  'satellite-agent-network': 'Tell an administrator if it recurs.',
  'node-lost': null,
  'agent-restarted': 'If it recurs, read the build log of the workspace.',
  'workspace-cpu-starved': 'See what runs in the workspace, or ask for a template with more CPU.',
  'workspace-out-of-memory': 'Use less memory at a time, or a template with a higher limit.',
  'workspace-stopped': null,
  'server-unreachable': 'Tell an administrator if it recurs.',
  'ticket-expired': 'Connect again. If that fails: cde whoami.',
  unknown: 'If it recurs, run `cde netcheck` while it happens.',
};

/** What to do about it; null: nothing. */
export function adviceFor(cause: IncidentCause, { kind, reason }: Spell): string | null {
  if (cause === 'workspace-stopped' && kind === 'ended' && reason !== 'agent-restarted')
    return 'Start it: cde start.';
  return advice[cause];
}
