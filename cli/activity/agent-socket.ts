import type { Lease } from '@cde/api/activity.ts';
import { type HttpReply, sendRequest } from '@cde/api/send-request.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure } from '../failure/failure.ts';

/** The agent sends a request to the server, which may be restarting. */
const silenceMs = 30_000;
const maxReplyBytes = 64 * 1024;

async function send(socketPath: string, method: string, path: string, body?: unknown): Promise<unknown> {
  let reply: HttpReply;
  try {
    reply = await sendRequest(
      { socketPath, path },
      {
        method,
        // The agent may look at the host to keep web pages out.
        headers: { host: 'agent', ...(body !== undefined && { 'content-type': 'application/json' }) },
        body: body === undefined ? undefined : JSON.stringify(body),
        maxReplyBytes,
        silenceMs,
      },
    );
  } catch (cause) {
    throw new Failure('agent-socket-failed', 'The agent of this workspace could not be asked.', {
      exitCode: exitCodes.unreachable,
      detail: `${socketPath}: ${(cause as Error).message}`,
      hint: 'Try again, or run `cde keep-awake NAME` on your own machine.',
      cause,
    });
  }
  if (reply.status >= 400) throw refusal(reply);
  return reply.text === '' ? undefined : JSON.parse(reply.text);
}

function refusal({ status, text }: HttpReply): Failure {
  const fallback = `The agent of this workspace refused: status ${status}.`;
  try {
    const { code, message, detail, hint } = JSON.parse(text) as Record<string, string | undefined>;
    return new Failure(code ?? 'agent-socket-failed', message ?? fallback, { detail, hint });
  } catch {
    return new Failure('agent-socket-failed', fallback, { detail: text.slice(0, 200) || undefined });
  }
}

export function createLeaseHere(
  socket: string,
  body: { seconds: number; reason: string; renews: string | undefined },
): Promise<Lease> {
  return send(socket, 'POST', '/keep-awake', body) as Promise<Lease>;
}

export async function endLeaseHere(socket: string, id: string): Promise<void> {
  await send(socket, 'DELETE', `/keep-awake/${encodeURIComponent(id)}`);
}
