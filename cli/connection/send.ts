import { CallError } from '@cde/api/client.ts';
import { ReplyTooLarge, sendRequest } from '@cde/api/send-request.ts';
import { proxyAgent, proxyHint } from '@cde/tunnel/network/proxy.ts';

/** A reply: the part of `Response` that the typed client uses. */
export interface Reply {
  status: number;
  ok: boolean;
  text: string;
  /** By lower-case name. */
  header(name: string): string | undefined;
  /** Each Set-Cookie. */
  cookies: string[];
}

/** Longer than the server holds a request (20 s), shorter than a user's patience with a dead connection. */
const silenceMs = 45_000;

/** Ten times the largest page, because a hostile server must not fill this machine's memory. */
const maxReplyBytes = 32 * 1024 * 1024;

/** Created once, so that connections are reused. */
let agent: ReturnType<typeof proxyAgent>;

/** Sends one request, through the proxy if there is one. */
export async function send(
  url: string,
  init: { method: string; headers: Record<string, string>; body?: string; signal: AbortSignal },
): Promise<Reply> {
  if (url.startsWith('https:')) agent ??= proxyAgent({ keepAlive: true });
  try {
    const { status, headers, text } = await sendRequest(url, {
      ...init,
      ...(url.startsWith('https:') && agent && { agent }),
      maxReplyBytes,
      silenceMs,
    });
    return {
      ...makeReply(status, text),
      header: (name) => headers[name]?.toString(),
      cookies: headers['set-cookie'] ?? [],
    };
  } catch (error) {
    if (error instanceof ReplyTooLarge) throw tooLarge();
    (error as Error).message += proxyHint(url);
    throw error;
  }
}

function tooLarge(): CallError {
  return new CallError(0, {
    code: 'reply-too-large',
    message: `The server's reply is larger than ${maxReplyBytes / 1024 / 1024} MiB, so it was not read.`,
    hint: 'Check the address of the server: no reply of a cde server is that large.',
  });
}

/** A reply without headers. */
export function makeReply(status: number, text: string): Reply {
  return { status, ok: status >= 200 && status < 300, text, header: () => undefined, cookies: [] };
}
