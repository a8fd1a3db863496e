/** Every way a session, pipe, path or ticket can fail: what happened and what to do. README.md lists them. */
export const tunnelErrors = {
  'ticket-invalid': ['The ticket was not signed by this server', 'Connect again to get a new ticket'],
  'ticket-expired': ['The ticket has expired', "Connect again; if it recurs, compare this machine's clock"],
  'ticket-missing': ['A session must send its ticket first', 'Use a client of the same release'],
  'ticket-wrong-workspace': ['The ticket is for another workspace', 'Connect again'],
  'ticket-wrong-agent': [
    'The ticket is for another agent than the one that answered',
    'The workspace was restarted: connect again',
  ],
  'ticket-proof-invalid': [
    'The client does not hold the key of its ticket',
    'Connect again; a ticket cannot be passed on or replayed',
  ],
  'listen-token-invalid': [
    'The listen token was not signed by this server',
    'The agent registers again automatically',
  ],
  'listen-token-expired': ['The listen token has expired', 'The agent registers again automatically'],
  'agent-key-mismatch': [
    'The peer does not hold the key of this workspace’s agent',
    'Connect again; if it recurs, do not trust the satellite or the network in between',
  ],
  'agent-not-connected': [
    'The agent of the workspace is not connected to the satellite',
    'Check that the workspace is running: cde show',
  ],
  'agent-lost': ['The agent’s connection to the satellite broke', 'Connect again'],
  'agent-closed': ['The agent ended the session', 'Connect again'],
  'client-lost': ['The client’s connection to the satellite broke', undefined],
  'access-ended': [
    'Your access to workspaces on this server was revoked',
    'Ask an owner of this installation',
  ],
  'satellite-unreachable': [
    'The satellite cannot be reached',
    'Check the network, a proxy in between and the address',
  ],
  'satellite-refused': ['The satellite refused the connection', undefined],
  'satellite-lost': ['The connection to the satellite broke', 'Check the network and connect again'],
  'satellite-restarted': ['The satellite is restarting', 'Connect again'],
  'satellite-draining': ['The satellite is draining', 'Connect again: another satellite takes over'],
  'satellite-overloaded': [
    'The satellite is at its limit for this workspace',
    'Wait a few seconds and connect again',
  ],
  'listener-superseded': ['The agent of a newer build now listens for this workspace', undefined],
  'path-forbidden': [
    'Paths of this kind are forbidden for the workspace',
    'Connect without --path, or ask an administrator',
  ],
  'path-unavailable': [
    'No path of the requested kind is available',
    'Connect without --path: a relay works wherever the dashboard does',
  ],
  'path-unreachable': ['The address does not answer', 'A firewall or network policy may block it'],
  'path-unsupported': [
    'Paths by UDP are not supported on this machine',
    'Everything else works; node-datachannel is not available for every platform',
  ],
  'path-lost': ['The direct connection broke', 'Connect again'],
  'session-timeout': ['The agent did not answer in time', 'Connect again'],
  'session-unknown': ['The agent does not know this session', 'Connect again'],
  'session-abandoned': ['The session had no connection for too long', 'Connect again'],
  'session-displaced': [
    'The agent ended the session because too many sessions were waiting for their connection',
    'Connect again',
  ],
  'resume-proof-invalid': [
    'The peer that offered to resume the session does not hold its secret',
    'Connect again; if it recurs, do not trust the satellite or the network in between',
  ],
  'agent-restarted': ['The workspace’s agent was restarted, which ended the session', 'Connect again'],
  'workspace-stopped': ['The workspace is no longer running', 'Start it: cde start'],
  'ticket-refused': ['The server refused to continue this session', 'Check your access: cde whoami'],
  'session-closed': ['The session is closed', undefined],
  'session-failed': ['The session failed', 'Connect again'],
  'session-aborted': ['The connection attempt was canceled', undefined],
  'pipe-closed': ['The other end closed the pipe', undefined],
  'frame-bad-version': [
    'The other end speaks another version of the pipe',
    'Use clients and agents of one release',
  ],
  'frame-unknown-type': [
    'The pipe received a frame of unknown type',
    'Something in the network altered the traffic',
  ],
  'frame-bad-flags': [
    'The pipe received a frame with unknown flags',
    'Something in the network altered the traffic',
  ],
  'frame-too-large': [
    'The pipe received a frame beyond the size limit',
    'Something in the network altered the traffic',
  ],
  'frame-malformed': ['The pipe received a malformed frame', 'Something in the network altered the traffic'],
  'frame-flood': [
    'The pipe received far too many frames without data',
    'Use clients and agents of one release',
  ],
  'frame-out-of-order': [
    'The pipe received data out of order',
    'Something in the network lost, repeated or reordered traffic',
  ],
  'target-invalid': [
    'The target is invalid',
    'Use ssh, tcp or udp with host and port, or unix with a path; agents of earlier releases support fewer',
  ],
  'target-refused': ['Nothing listens at the target', 'Check that the program runs and listens on that port'],
  'target-not-found': ['The target does not exist inside the workspace', 'Check the host name or the path'],
  'target-timeout': ['The target did not answer in time', undefined],
  'target-unreachable': ['The target cannot be reached from the workspace', undefined],
  'target-forbidden': ['The agent is not allowed to open the target', undefined],
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
