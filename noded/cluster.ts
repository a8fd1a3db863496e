import { readFileSync } from 'node:fs';
import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { join } from 'node:path';
import { sendRequest } from '@cde/api/send-request.ts';

/** The part of the cluster's API that noded uses. Calls reject with the cluster's message. */
export interface Cluster {
  get(path: string): Promise<unknown>;
  /** With a JSON merge patch. */
  patch(path: string, body: object): Promise<unknown>;
  post(path: string, body: object): Promise<unknown>;
}

/** Where Kubernetes mounts the credentials of a pod. */
const account = '/var/run/secrets/kubernetes.io/serviceaccount';
/** A call without a response must not block the next one. */
const callMs = 10_000;
/** A node with all its status is less than 100 kB. */
const maxReplyBytes = 16 * 1024 * 1024;

/**
 * Three calls with Node's own client instead of the Kubernetes library, which takes 35 MB more on each node and half a second
 * of its CPU. `url`: a proxy that adds credentials (`kubectl proxy`); without it, the API of the cluster that this pod runs in.
 */
export function makeCluster(url: string | undefined, env: NodeJS.ProcessEnv = process.env): Cluster {
  const host = env.KUBERNETES_SERVICE_HOST;
  if (!url && !host)
    throw new Error(
      'This is not a pod of a cluster (no KUBERNETES_SERVICE_HOST). Set CDE_NODED_API to the URL of its API.',
    );
  const base = new URL(
    url ?? `https://${host!.includes(':') ? `[${host}]` : host}:${env.KUBERNETES_SERVICE_PORT ?? 443}`,
  );
  const agent =
    base.protocol === 'http:' ? new HttpAgent({ keepAlive: true }) : new HttpsAgent({ keepAlive: true });
  /** Read for each call, because Kubernetes replaces the token about once an hour. */
  const credentials = () =>
    url
      ? {}
      : {
          ca: readFileSync(join(account, 'ca.crt')),
          headers: { authorization: `Bearer ${readFileSync(join(account, 'token'), 'utf8').trim()}` },
        };

  async function call(method: string, path: string, type?: string, body?: object): Promise<unknown> {
    const { headers, ...tls } = credentials() as { headers?: Record<string, string>; ca?: Buffer };
    const signal = AbortSignal.timeout(callMs);
    const { status, text } = await sendRequest(new URL(path, base), {
      ...tls,
      agent,
      method,
      signal,
      headers: {
        ...headers,
        accept: 'application/json',
        'user-agent': 'cde-noded',
        ...(type && { 'content-type': type }),
      },
      body: body && JSON.stringify(body),
      maxReplyBytes,
    }).catch((error: Error) => {
      throw signal.aborted ? new Error(`the cluster did not respond within ${callMs / 1000} s`) : error;
    });
    if (status >= 300) throw new Error(`${method} ${path.split('?')[0]}: ${wordsOf(text)} (${status})`);
    return JSON.parse(text);
  }
  return {
    get: (path) => call('GET', path),
    patch: (path, body) => call('PATCH', path, 'application/merge-patch+json', body),
    post: (path, body) => call('POST', path, 'application/json', body),
  };
}

function wordsOf(text: string): string {
  try {
    return (JSON.parse(text) as { message?: string }).message ?? text;
  } catch {
    return text.slice(0, 200);
  }
}
