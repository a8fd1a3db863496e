import { Problem } from '@cde/api/problem.ts';
import type { RequestHead } from '@cde/satellite/ports/gateway.ts';
import { isCdeToken } from '@cde/satellite/ports/headers.ts';
import type { Auth, UserActor } from '../http/actor.ts';

/** Whether a browser navigates to this URL, as opposed to a page fetching it. */
export function isNavigation(request: RequestHead): boolean {
  if (request.method !== 'GET' && request.method !== 'HEAD') return false;
  const dest = request.headers['sec-fetch-dest'];
  return dest === undefined
    ? /\btext\/html\b/.test(request.headers.accept ?? '')
    : dest === 'document' && request.headers['sec-fetch-mode'] === 'navigate';
}

/** The user whose cde token the request carries; null if it carries none. Throws a Problem if the token is invalid. */
export async function authenticateToken(gate: Auth, request: RequestHead): Promise<UserActor | null> {
  const { authorization } = request.headers;
  if (!isCdeToken(authorization)) return null;
  const actor = await gate.authenticate({ authorization }, { method: 'GET', ip: request.ip });
  return actor.kind === 'user' ? actor : null;
}

export const signInRequired = () =>
  new Problem('sign-in-required', 'This port is not public, and you are not signed in.', {
    hint: 'Open it in a browser, or send a token: Authorization: Bearer …',
  });
export const crossOriginRequest = (detail: string) =>
  new Problem('port-request-foreign', "This request did not come from one of the port's own pages.", {
    detail,
  });
