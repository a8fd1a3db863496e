import { readFile } from 'node:fs/promises';
import http from 'node:http';
import https from 'node:https';
import pLimit from 'p-limit';
import { KubeError } from './client.ts';
import type { ClusterRecord } from './connections.ts';

export interface Transport {
  server: string;
  certificateAuthority: string | null;
  calls(): number;
  /** The reply's JSON, or its text. `Reply` is the caller's claim; it is not checked. */
  request<Reply>(
    method: string,
    path: string,
    options?: { body?: unknown; contentType?: string; text?: boolean },
  ): Promise<Reply>;
  /** Calls back for each line of a streamed reply; resolves when the server ends it. */
  stream(path: string, signal: AbortSignal, onLine: (line: string) => void): Promise<void>;
  close(): void;
}

/** After these a cluster counts as unreachable. */
const connectTimeoutMs = 5_000;
const callTimeoutMs = 15_000;
/** Concurrent calls to one cluster; further calls wait for a slot. */
const maxConcurrentCalls = 20;
/** Kubernetes rotates the token of a pod's service account. */
const refreshMs = 60_000;

const badCredentials = (message: string, hint: string) =>
  new KubeError(`${message} ${hint}`, { status: 422, reason: 'BadCredentials' });

/** In-cluster credentials name a file; an uploaded kubeconfig contains the certificate. */
async function authorityOf({ caData, caFile }: { caData?: string; caFile?: string }): Promise<string | null> {
  if (caData) return Buffer.from(caData, 'base64').toString();
  return caFile ? readFile(caFile, 'utf8') : null;
}

/**
 * HTTP to one cluster, with credentials as @kubernetes/client-node reads them. Rejects with KubeError
 * (`BadCredentials`) when they cannot be used: an uploaded kubeconfig must not run programs or read files on the
 * server.
 */
export async function makeTransport(record: Pick<ClusterRecord, 'name' | 'credentials'>): Promise<Transport> {
  // The import takes half a second: only servers with a cluster pay for it.
  const { KubeConfig } = await import('@kubernetes/client-node');
  const config = new KubeConfig();
  if (record.credentials.kind === 'in-cluster') config.loadFromCluster();
  else {
    try {
      config.loadFromString(record.credentials.text);
    } catch (cause) {
      throw badCredentials(
        `This is not a kubeconfig: ${(cause as Error).message}.`,
        'kubectl config view --raw --flatten --minify prints one.',
      );
    }
    const user = config.getCurrentUser();
    const cluster = config.getCurrentCluster();
    if (!cluster)
      throw badCredentials(
        'The current context of the kubeconfig names no cluster.',
        'Set one: kubectl config use-context NAME',
      );
    if (user?.exec || user?.authProvider)
      throw badCredentials(
        'The kubeconfig gets its credentials from a program, which the server does not run.',
        'Use a token or a client certificate: see docs/clusters.md.',
      );
    if (user?.certFile || user?.keyFile || cluster.caFile)
      throw badCredentials(
        'The kubeconfig refers to files, which are not on the server.',
        'Embed their content: kubectl config view --raw --flatten --minify',
      );
  }
  const cluster = config.getCurrentCluster()!;
  const base = new URL(cluster.server);
  const { request: send } = base.protocol === 'http:' ? http : https;
  const certificateAuthority = await authorityOf(cluster);

  let options: https.RequestOptions = {};
  let agent: http.Agent | https.Agent | null = null;
  let refreshedAt = 0;
  async function credentials(): Promise<https.RequestOptions> {
    if (agent && Date.now() - refreshedAt < refreshMs) return options;
    const fresh: https.RequestOptions = {};
    await config.applyToHTTPSOptions(fresh);
    const { ca, cert, key, pfx, passphrase, rejectUnauthorized, servername } = fresh;
    const tls = Object.fromEntries(
      Object.entries({ ca, cert, key, pfx, passphrase, rejectUnauthorized, servername }).filter(
        ([, value]) => value !== undefined && value !== null,
      ),
    );
    agent ??=
      base.protocol === 'http:'
        ? new http.Agent({ keepAlive: true })
        : new https.Agent({ ...tls, keepAlive: true, maxCachedSessions: 10 });
    options = {
      headers: { ...(fresh.headers as Record<string, string>) },
      ...(fresh.auth && { auth: fresh.auth }),
    };
    refreshedAt = Date.now();
    return options;
  }

  let calls = 0;
  const withSlot = pLimit(maxConcurrentCalls);

  async function open(
    method: string,
    path: string,
    more: { body?: string; contentType?: string; signal?: AbortSignal; timeoutMs?: number; text?: boolean },
  ): Promise<http.IncomingMessage> {
    const { headers, auth } = await credentials();
    calls++;
    return new Promise((resolve, reject) => {
      const request = send(
        {
          protocol: base.protocol,
          hostname: base.hostname.replace(/^\[|\]$/g, ''),
          port: base.port,
          path: `${base.pathname.replace(/\/+$/, '')}${path}`,
          method,
          auth,
          agent: agent!,
          headers: {
            ...headers,
            accept: more.text ? '*/*' : 'application/json',
            'user-agent': 'cde',
            ...(more.body !== undefined && {
              'content-type': more.contentType ?? 'application/json',
              'content-length': Buffer.byteLength(more.body),
            }),
          },
          ...(more.signal && { signal: more.signal }),
        },
        resolve,
      );
      const limit = setTimeout(
        () =>
          request.destroy(
            Object.assign(new Error(`no answer within ${(more.timeoutMs ?? callTimeoutMs) / 1000} s`), {
              code: 'ETIMEDOUT',
            }),
          ),
        more.timeoutMs ?? callTimeoutMs,
      );
      request.on('socket', (socket) => {
        if (!socket.connecting) return;
        const slow = setTimeout(
          () =>
            request.destroy(
              Object.assign(new Error(`no connection within ${connectTimeoutMs / 1000} s`), {
                code: 'ETIMEDOUT',
              }),
            ),
          connectTimeoutMs,
        );
        socket.once(base.protocol === 'http:' ? 'connect' : 'secureConnect', () => clearTimeout(slow));
        request.once('close', () => clearTimeout(slow));
      });
      request.on('response', () => more.signal && clearTimeout(limit));
      request.on('close', () => clearTimeout(limit));
      request.on('error', (error) => reject(unreachableError(error)));
      request.end(more.body);
    });
  }

  async function read(response: http.IncomingMessage): Promise<string> {
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of response) chunks.push(chunk as Buffer);
    } catch (error) {
      throw unreachableError(error as Error);
    }
    return Buffer.concat(chunks).toString();
  }

  function unreachableError(error: Error): KubeError {
    return new KubeError(`The API server ${base.host} cannot be reached: ${describeNetworkError(error)}.`, {
      unreachable: true,
      cause: error,
    });
  }

  return {
    server: cluster.server,
    certificateAuthority,
    calls: () => calls,
    request: (method, path, { body, contentType, text } = {}) =>
      withSlot(async () => {
        const response = await open(method, path, {
          ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
          ...(contentType && { contentType }),
          ...(text && { text }),
        });
        const answer = await read(response);
        if ((response.statusCode ?? 0) >= 400) throw errorOf(response.statusCode!, answer);
        return text ? answer : JSON.parse(answer || '{}');
      }),
    async stream(path, signal, onLine) {
      const response = await open('GET', path, { signal });
      if ((response.statusCode ?? 0) >= 400) throw errorOf(response.statusCode!, await read(response));
      response.setEncoding('utf8');
      let rest = '';
      try {
        for await (const chunk of response) {
          const lines = (rest + chunk).split('\n');
          rest = lines.pop()!;
          for (const line of lines) if (line) onLine(line);
        }
      } catch (error) {
        if (error instanceof KubeError) throw error;
        throw unreachableError(error as Error);
      }
    },
    close: () => agent?.destroy(),
  };
}

function errorOf(status: number, answer: string): KubeError {
  let body: { message?: string; reason?: string; details?: { causes?: KubeError['causes'] } } = {};
  try {
    body = JSON.parse(answer);
  } catch {
    // Proxies answer with an HTML page.
  }
  // Every version so far answers 500 for an object whose fields do not match its kind.
  const isInvalidObject = status === 500 && /^failed to create typed patch object/.test(body.message ?? '');
  return new KubeError(body.message ?? `The API server answered ${status}: ${answer.slice(0, 200)}`, {
    status,
    reason: body.reason ?? '',
    // 500 also covers timeouts inside the API server; an invalid object is 4xx.
    unreachable: (status >= 500 && !isInvalidObject) || status === 429,
    causes: body.details?.causes ?? [],
  });
}

const networkErrors: Record<string, string> = {
  ENOTFOUND: 'its name does not resolve',
  EAI_AGAIN: 'DNS does not answer',
  ECONNREFUSED: 'the connection was refused',
  ECONNRESET: 'the connection was reset',
  EHOSTUNREACH: 'there is no route to it',
  ENETUNREACH: 'there is no route to its network',
  CERT_HAS_EXPIRED: 'its certificate has expired',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'its certificate is not signed by an authority in the kubeconfig',
  SELF_SIGNED_CERT_IN_CHAIN: 'its certificate is not signed by an authority in the kubeconfig',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'its certificate is not signed by an authority in the kubeconfig',
  ERR_TLS_CERT_ALTNAME_INVALID: 'its certificate is for a different name',
};

function describeNetworkError(error: Error): string {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  return networkErrors[code] ?? error.message.replace(/\.$/, '');
}
