import type { Config } from '../config.ts';

const loopbackHosts = ['localhost', '127.0.0.1', '[::1]'];

/**
 * The origins that a browser may change things from: the access URL's. Where that is a loopback address
 * and nothing else can reach the server, a person may type any of its names; they are one machine.
 */
export function allowedOrigins(config: Pick<Config, 'accessUrl' | 'loopback'>): string[] {
  const url = new URL(config.accessUrl);
  if (!config.loopback || !loopbackHosts.includes(url.hostname)) return [url.origin];
  const port = url.port === '' ? '' : `:${url.port}`;
  return [...new Set([url.origin, ...loopbackHosts.map((host) => `${url.protocol}//${host}${port}`)])];
}
