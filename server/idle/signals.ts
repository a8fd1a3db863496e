/**
 * What counts as activity, and who or what causes it. An open connection, a keep-alive, a health probe, an automatic
 * reconnect, a look at the dashboard and the agent's own traffic are missing here on purpose: none of them means that
 * somebody needs the workspace.
 */
export const signalSources = {
  'terminal-input': 'person',
  'editor-input': 'person',
  'port-visit': 'person',
  'process-cpu': 'work',
  'disk-throughput': 'work',
  'network-throughput': 'work',
  'command-output': 'work',
  build: 'work',
  sync: 'work',
} as const;

export type Signal = keyof typeof signalSources;
export type SignalSource = (typeof signalSources)[Signal];

export const signals = Object.keys(signalSources) as Signal[];

/** The latest occurrence of a signal. */
export interface Occurrence {
  /** Unix time in ms. */
  at: number;
  /** Who or what caused it: a username, a process name. */
  by?: string;
}

/** A request to stay awake until a moment, made by `cde keep-awake`, its API or a program in the workspace. */
export interface Lease {
  id: string;
  /** Unix time in ms. */
  expiresAt: number;
  by: string;
}
