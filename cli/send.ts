import { CallError } from '@cde/api/client.ts';
import { ReplyTooLarge, sendRequest } from '@cde/api/send-request.ts';
import { proxyAgent, proxyHint } from '@cde/tunnel/network/proxy.ts';

/** What a request came back with; the part of `Response` that the typed client looks at. */
export interface Reply {
  status: number;
  ok: boolean;
  text: string;
  /** By its name in lower case. */
  header(name: string): string | undefined;
  /** Each Set-Cookie. */
  cookies: string[];
}

/** Longer than any request of ours is held open (20 s), shorter than a person waits on a connection that is dead. */
const silenceMs = 45_000;

/** Ten times the largest page that a server gives; a hostile one must not fill this machine's memory. */
const maxReplyBytes = 32 * 1024 * 1024;

/** Made once, so that connections are kept. */
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
