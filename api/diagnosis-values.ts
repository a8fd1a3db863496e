// Without zod, for the CLI and the dashboard.

/** The part of the way between a person and their workspace that an incident is traced to. */
export const segments = [
  'client',
  'client-network',
  'satellite',
  'agent-network',
  'node',
  'workspace',
  'server',
  'unknown',
] as const;
export type Segment = (typeof segments)[number];

/** Every cause of an incident, with the segment it belongs to. */
export const incidentCauses = {
  'client-slept': 'client',
  'client-overloaded': 'client',
  'client-network-changed': 'client-network',
  'client-network-lossy': 'client-network',
  'udp-blocked': 'client-network',
  'proxy-interference': 'client-network',
  'satellite-restarted': 'satellite',
  'satellite-overloaded': 'satellite',
  'satellite-agent-network': 'agent-network',
  'node-lost': 'node',
  'agent-restarted': 'workspace',
  'workspace-cpu-starved': 'workspace',
  'workspace-out-of-memory': 'workspace',
  'workspace-stopped': 'workspace',
  'server-unreachable': 'server',
  'ticket-expired': 'server',
  unknown: 'unknown',
} as const satisfies Record<string, Segment>;
export type IncidentCause = keyof typeof incidentCauses;

/**
 * `drop`: no path for a while. `stall`: a path, and no answer. `slow`: answers that are noticeably late. `ended`: the
 * session was lost.
 */
export const incidentKinds = ['drop', 'stall', 'slow', 'ended'] as const;
export type IncidentKind = (typeof incidentKinds)[number];

/** The length of the windows in which legs are sampled. */
export const windowMs = 10_000;

/** What could not be delivered for this long is forgotten. */
export const maxReportAgeMs = 6 * 3600_000;

/** A key that echoes this late annoys. A window in which one round trip in twenty takes longer counts as slow. */
export const noticeableMs = 150;
