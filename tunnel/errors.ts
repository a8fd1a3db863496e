/** Every way a session, pipe, path or ticket can fail: what happened and what to do. README.md lists them. */
export const tunnelErrors = {
  'ticket-invalid': [
    'The ticket is not one that this server signed',
    'Ask for a new ticket by connecting again',
  ],
  'ticket-expired': ['The ticket has expired', "Connect again; if it recurs, compare this machine's clock"],
  'ticket-missing': [
    'A session must show its ticket before anything else',
    'Use a client of the same release',
  ],
  'ticket-wrong-workspace': ['The ticket is for another workspace', 'Connect again'],
  'ticket-wrong-agent': [
    'The ticket names another agent than the one that answered',
    'The workspace was restarted since: connect again',
  ],
  'ticket-proof-invalid': [
    'The client does not hold the key that the ticket was made for',
    'Connect again; a ticket cannot be passed on or replayed',
  ],
  'listen-token-invalid': [
    'The listen token is not one that this server signed',
    'The agent registers again by itself',
  ],
  'listen-token-expired': ['The listen token has expired', 'The agent registers again by itself'],
  'agent-key-mismatch': [
    'What answered does not hold the key of this workspace’s agent',
    'Connect again; if it recurs, the satellite or the network between is not to be trusted',
  ],
  'agent-not-connected': [
    'The agent of the workspace is not connected to the satellite',
    'Check that the workspace is running: cde show',
  ],
  'agent-lost': ['The agent’s connection to the satellite broke', 'Connect again'],
  'agent-closed': ['The agent ended the session', 'Connect again'],
  'client-lost': ['The client’s connection to the satellite broke', undefined],
  'access-ended': ['The user may no longer connect to workspaces here', 'Ask an owner of this installation'],
  'satellite-unreachable': [
    'The satellite cannot be reached',
    'Check the network, a proxy in between and the address',
  ],
  'satellite-refused': ['The satellite refused the connection', undefined],
  'satellite-lost': ['The connection to the satellite broke', 'Check the network and connect again'],
  'satellite-restarted': ['The satellite restarts', 'Connect again'],
  'satellite-draining': ['The satellite is being emptied', 'Connect again: another satellite takes over'],
  'satellite-overloaded': [
    'The satellite is at its limit for this workspace',
    'Wait a few seconds and connect again',
  ],
  'listener-superseded': ['The agent of a newer build listens for this workspace', undefined],
  'path-forbidden': [
    'Paths of this kind are forbidden for the workspace',
    'Connect without --path, or ask an administrator',
  ],
  'path-unavailable': [
    'No path of the kind that was asked for can be had',
    'Connect without --path: a relay serves wherever the dashboard does',
  ],
  'path-unreachable': [
    'The address does not answer',
    'A firewall, or a network policy of the cluster, may be in between',
  ],
  'path-unsupported': [
    'Paths by UDP do not work on this machine',
    'All else does; node-datachannel is not made for every platform',
  ],
  'path-lost': ['The direct connection broke', 'Connect again'],
  'session-timeout': ['The agent did not answer in time', 'Connect again'],
  'session-unknown': ['The agent does not know the session', 'Connect again'],
  'session-abandoned': ['The session was without any connection for too long', 'Connect again'],
  'session-displaced': [
    'The agent ended the session, because too many others wait for their connection to come back',
    'Connect again',
  ],
  'resume-proof-invalid': [
    'What offered to go on with the session does not hold its secret',
    'Connect again; if it recurs, the satellite or the network between is not to be trusted',
  ],
  'agent-restarted': ['The workspace’s agent was restarted, which ended the session', 'Connect again'],
  'workspace-stopped': ['The workspace does not run any more', 'Start it: cde start'],
  'ticket-refused': ['The server lets this session go on no longer', 'Check your access: cde whoami'],
  'session-closed': ['The session is closed', undefined],
  'session-failed': ['The session broke down', 'Connect again'],
  'session-aborted': ['The connection attempt was called off', undefined],
  'pipe-closed': ['The other end closed the pipe', undefined],
  'frame-bad-version': [
    'The other end speaks another version of the pipe',
    'Use clients and agents of one release',
  ],
  'frame-unknown-type': [
    'The pipe got a frame of an unknown type',
    'The network between altered the traffic',
  ],
  'frame-bad-flags': ['The pipe got a frame with unknown flags', 'The network between altered the traffic'],
  'frame-too-large': [
    'The pipe got a frame beyond the size limit',
    'The network between altered the traffic',
  ],
  'frame-malformed': ['The pipe got a frame that makes no sense', 'The network between altered the traffic'],
  'frame-flood': [
    'The pipe got far more frames without data than a peer sends',
    'Use clients and agents of one release',
  ],
  'frame-out-of-order': [
    'The pipe got bytes of another position than the next',
    'The network between lost, repeated or reordered traffic',
  ],
  'target-invalid': [
    'The target cannot be understood',
    'Use ssh, tcp or udp with host and port, or unix with a path; an agent of an older release knows fewer',
  ],
  'target-refused': ['Nothing listens at the target', 'Check that the program runs and listens on that port'],
  'target-not-found': ['The target does not exist inside the workspace', 'Check the host name or the path'],
  'target-timeout': ['The target did not answer in time', undefined],
  'target-unreachable': ['The target cannot be reached from the workspace', undefined],
  'target-forbidden': ['The agent may not open the target', undefined],
  'target-failed': ['The agent could not open the target', undefined],
} as const satisfies Record<string, readonly [string, string | undefined]>;

export type TunnelErrorCode = keyof typeof tunnelErrors;

/** True for a code of the catalogue (for codes that came over the network). */
export function isTunnelErrorCode(code: string): code is TunnelErrorCode {
  return Object.hasOwn(tunnelErrors, code);
}

/** The one error of the tunnel: a stable code, a sentence, and where known why (`detail`) and what to do (`hint`). */
export class TunnelError extends Error {
  readonly code: TunnelErrorCode;
  readonly detail: string | undefined;
  readonly hint: string | undefined;

  constructor(code: TunnelErrorCode, detail?: string, options?: { cause?: unknown }) {
    const [message, hint] = tunnelErrors[code];
    super(detail ? `${message}: ${detail}` : message, options);
    this.name = 'TunnelError';
    this.code = code;
    this.detail = detail;
    this.hint = hint;
  }
}

/** Makes any thrown thing a TunnelError, keeping one that is. */
export function asTunnelError(error: unknown, code: TunnelErrorCode): TunnelError {
  if (error instanceof TunnelError) return error;
  return new TunnelError(code, error instanceof Error ? error.message || error.name : String(error), {
    cause: error,
  });
}
