import { readFile } from 'node:fs/promises';
import http from 'node:http';
import https from 'node:https';
import { KubeError } from './client.ts';
import type { ClusterRecord } from './connections.ts';

export interface Transport {
  server: string;
  certificateAuthority: string | null;
  calls(): number;
  request(
    method: string,
    path: string,
    options?: { body?: unknown; contentType?: string; text?: boolean },
  ): Promise<unknown>;
  /** Calls back for each line of an endless reply; resolves when the server ends it. */
  stream(path: string, signal: AbortSignal, onLine: (line: string) => void): Promise<void>;
  close(): void;
}

/** Past that a cluster counts as away. */
const connectTimeoutMs = 5_000;
const callTimeoutMs = 15_000;
/** Calls under way at once to one cluster; the rest wait their turn. */
const maxConcurrentCalls = 20;
/** The token of a pod's own service account is changed by Kubernetes now and then. */
const refreshMs = 60_000;

const badCredentials = (message: string, hint: string) =>
  new KubeError(`${message} ${hint}`, { status: 422, reason: 'BadCredentials' });

/** The credentials of our own pod name a file; those of an upload hold the certificate itself. */
async function authorityOf({ caData, caFile }: { caData?: string; caFile?: string }): Promise<string | null> {
  if (caData) return Buffer.from(caData, 'base64').toString();
  return caFile ? readFile(caFile, 'utf8') : null;
}

/**
 * HTTP to one cluster, with credentials as @kubernetes/client-node reads them. Rejects with KubeError
 * (`BadCredentials`) when they cannot be used: a kubeconfig that somebody uploads must run no program of the
 * server and read no file of it.
 */
export async function makeTransport(record: Pick<ClusterRecord, 'name' | 'credentials'>): Promise<Transport> {
  // Half a second to import: only where there is a cluster.
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
        'The kubeconfig has no current context that names a cluster.',
        'Set one: kubectl config use-context NAME',
      );
    if (user?.exec || user?.authProvider)
      throw badCredentials(
        'The kubeconfig gets its credentials from a program, which the server does not run.',
        'Give it a token or a client certificate; docs/clusters.md shows how.',
      );
    if (user?.certFile || user?.keyFile || cluster.caFile)
      throw badCredentials(
        'The kubeconfig names files, which are not on the server.',
        'Put their content into it: kubectl config view --raw --flatten --minify',
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
  let running = 0;
  const waiting: (() => void)[] = [];
  async function withSlot<T>(work: () => Promise<T>): Promise<T> {
    while (running >= maxConcurrentCalls) await new Promise<void>((resolve) => waiting.push(resolve));
    running++;
    try {
      return await work();
    } finally {
      running--;
      waiting.shift()?.();
    }
  }

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
      unreachableError: true,
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
    // A proxy in between answers with a page.
  }
  // Said of an object whose fields are not as its kind has them, in each version so far as 500.
  const isInvalidObject = status === 500 && /^failed to create typed patch object/.test(body.message ?? '');
  return new KubeError(body.message ?? `The API server answered ${status}: ${answer.slice(0, 200)}`, {
    status,
    reason: body.reason ?? '',
    // A time-out of the API server's own comes as 500 too; what is wrong with an object comes as 4xx.
    unreachableError: (status >= 500 && !isInvalidObject) || status === 429,
    causes: body.details?.causes ?? [],
  });
}

const networkErrors: Record<string, string> = {
  ENOTFOUND: 'its name is not known to DNS',
  EAI_AGAIN: 'DNS does not answer',
  ECONNREFUSED: 'nothing listens there',
  ECONNRESET: 'the connection was cut',
  EHOSTUNREACH: 'there is no way to its network',
  ENETUNREACH: 'there is no way to its network',
  CERT_HAS_EXPIRED: 'its certificate has expired',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'its certificate is signed by nobody that the kubeconfig names',
  SELF_SIGNED_CERT_IN_CHAIN: 'its certificate is signed by nobody that the kubeconfig names',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'its certificate is signed by nobody that the kubeconfig names',
  ERR_TLS_CERT_ALTNAME_INVALID: 'its certificate is for another name',
};

function describeNetworkError(error: Error): string {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  return networkErrors[code] ?? error.message.replace(/\.$/, '');
}
