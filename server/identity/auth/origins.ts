import type { Config } from '../../config.ts';

const loopbackHosts = ['localhost', '127.0.0.1', '[::1]'];

/**
 * The origins that browsers can send changes from: that of the access URL. If the server is reachable only on loopback,
 * all names of the loopback address count, because they are the same machine.
 */
export function allowedOrigins(config: Pick<Config, 'accessUrl' | 'loopback'>): string[] {
  const url = new URL(config.accessUrl);
  if (!config.loopback || !loopbackHosts.includes(url.hostname)) return [url.origin];
  const port = url.port === '' ? '' : `:${url.port}`;
  return [...new Set([url.origin, ...loopbackHosts.map((host) => `${url.protocol}//${host}${port}`)])];
}
