/** The exit codes of `cde`, listed in docs/cli.md. `cde ssh` exits with the remote command's code instead. */
export const exitCodes = {
  success: 0,
  failure: 1,
  usage: 2,
  notFound: 3,
  permission: 4,
  conflict: 5,
  unreachable: 6,
  buildFailed: 7,
  interrupted: 130,
} as const;

/** Error codes whose exit code does not follow from their HTTP status. */
const byCode: Record<string, number> = {
  'server-unreachable': exitCodes.unreachable,
  'not-a-cde-server': exitCodes.unreachable,
  'parameters-invalid': exitCodes.usage,
  'sign-in-throttled': exitCodes.permission,
  'agent-not-connected': exitCodes.conflict,
  'access-ended': exitCodes.permission,
  'agent-lost': exitCodes.unreachable,
  'session-timeout': exitCodes.unreachable,
  'satellite-unreachable': exitCodes.unreachable,
  'satellite-refused': exitCodes.unreachable,
  'satellite-lost': exitCodes.unreachable,
  'satellite-restarted': exitCodes.unreachable,
  'satellite-draining': exitCodes.unreachable,
  'satellite-overloaded': exitCodes.unreachable,
  'session-abandoned': exitCodes.unreachable,
  'session-displaced': exitCodes.unreachable,
  'session-unknown': exitCodes.unreachable,
  'path-forbidden': exitCodes.permission,
  'path-unavailable': exitCodes.unreachable,
  'agent-restarted': exitCodes.unreachable,
  'workspace-stopped': exitCodes.conflict,
  'ticket-refused': exitCodes.permission,
  'ticket-expired': exitCodes.permission,
  'ticket-invalid': exitCodes.permission,
};

/**
 * The exit code for a failed call: by its error code if that is more specific, else by its HTTP status (0: no
 * response).
 */
export function exitCodeFor(code: string, status: number | undefined): number {
  const known = byCode[code];
  if (known !== undefined) return known;
  switch (status) {
    case 0:
    case 502:
    case 503:
    case 504:
      return exitCodes.unreachable;
    case 400:
      return exitCodes.usage;
    case 401:
    case 403:
      return exitCodes.permission;
    case 404:
      return exitCodes.notFound;
    case 409:
    case 410:
      return exitCodes.conflict;
    default:
      return exitCodes.failure;
  }
}
