import { request } from 'node:http';
import type { Lease } from '@cde/api/activity.ts';
import { exitCodes } from '../exit-codes.ts';
import { Failure } from '../failure.ts';

/** The agent asks the server, which may be restarting. */
const timeoutMs = 30_000;

function send(socketPath: string, method: string, path: string, body?: unknown): Promise<unknown> {
  const text = body === undefined ? undefined : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const outgoing = request(
      {
        socketPath,
        method,
        path,
        // The agent may look at the host to keep web pages out.
        headers: { host: 'agent', ...(text !== undefined && { 'content-type': 'application/json' }) },
        timeout: timeoutMs,
      },
      (incoming) => {
        let said = '';
        incoming.setEncoding('utf8').on('data', (chunk: string) => {
          said += chunk;
        });
        incoming.once('error', reject);
        incoming.once('end', () => {
          const status = incoming.statusCode ?? 0;
          if (status >= 400) reject(refusal(status, said));
          else resolve(said === '' ? undefined : JSON.parse(said));
        });
      },
    );
    outgoing.once('timeout', () => outgoing.destroy(new Error('it does not answer')));
    outgoing.once('error', (cause) =>
      reject(
        new Failure('agent-socket-failed', 'The agent of this workspace could not be asked.', {
          exitCode: exitCodes.unreachable,
          detail: `${socketPath}: ${cause.message}`,
          hint: 'Try again, or run `cde keep-awake NAME` on your own machine.',
          cause,
        }),
      ),
    );
    outgoing.end(text);
  });
}

function refusal(status: number, said: string): Failure {
  const fallback = `The agent of this workspace refused: status ${status}.`;
  try {
    const { code, message, detail, hint } = JSON.parse(said) as Record<string, string | undefined>;
    return new Failure(code ?? 'agent-socket-failed', message ?? fallback, { detail, hint });
  } catch {
    return new Failure('agent-socket-failed', fallback, { detail: said.slice(0, 200) || undefined });
  }
}

export function createLeaseHere(socket: string, body: { seconds: number; reason: string }): Promise<Lease> {
  return send(socket, 'POST', '/keep-awake', body) as Promise<Lease>;
}

export async function endLeaseHere(socket: string, id: string): Promise<void> {
  await send(socket, 'DELETE', `/keep-awake/${encodeURIComponent(id)}`);
}
