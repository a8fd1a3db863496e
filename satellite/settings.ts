import { isWildcardHost, listenAddress, listenUrl } from '@cde/api/addresses.ts';
import { HostPort } from '@cde/api/names.ts';
import { readSettings as read, SettingsError, type SettingValues } from '@cde/api/settings.ts';
import { z } from 'zod';
import { compileTrustProxy } from './ports/gateway.ts';
import { UdpListen } from './stun/service.ts';

const httpUrl = z.url({ protocol: /^https?$/ }).transform((text) => text.replace(/\/+$/, ''));
function isTrustProxy(text: string): boolean {
  try {
    compileTrustProxy(text);
    return true;
  } catch {
    return false;
  }
}
const seconds = z.coerce.number().min(0).max(86_400);

export const settings = {
  server: { env: 'CDE_SERVER_URL', schema: httpUrl, help: "The server's URL" },
  token: {
    env: 'CDE_SATELLITE_TOKEN',
    schema: z.string().startsWith('cde_satellite_', 'it starts with cde_satellite_'),
    isSecret: true,
    help: 'The token that `cde satellite add` printed. Prefer the variable, which other users of the machine cannot see',
  },
  region: {
    env: 'CDE_SATELLITE_REGION',
    schema: z.string().max(80),
    help: 'Its region, if it was added without one. The region cannot be changed later',
  },
  listen: {
    env: 'CDE_SATELLITE_LISTEN',
    schema: listenAddress('0.0.0.0:7090'),
    default: '0.0.0.0:7090',
    help: 'Address to listen on',
  },
  url: {
    env: 'CDE_SATELLITE_URL',
    schema: httpUrl,
    help: 'URL at which clients and agents reach it (default: the listen address)',
  },
  udp: {
    env: 'CDE_SATELLITE_UDP',
    schema: UdpListen,
    help: 'UDP PORT or HOST:PORT for STUN, or off (default: the port of --listen)',
  },
  udpAddress: {
    env: 'CDE_SATELLITE_UDP_ADDRESS',
    schema: HostPort,
    help: 'HOST:PORT at which others reach STUN (default: the host of --url)',
  },
  tlsCert: { env: 'CDE_SATELLITE_TLS_CERT', schema: z.string(), help: 'Certificate chain file (PEM)' },
  tlsKey: { env: 'CDE_SATELLITE_TLS_KEY', schema: z.string(), help: 'Private key file (PEM)' },
  metricsListen: {
    env: 'CDE_SATELLITE_METRICS_LISTEN',
    schema: listenAddress('127.0.0.1:9090'),
    help: 'Address to serve /metrics on, without authentication (default: none)',
  },
  trustProxy: {
    env: 'CDE_SATELLITE_TRUST_PROXY',
    schema: z
      .string()
      .refine(isTrustProxy, 'write addresses or networks separated by commas, for example 10.0.0.0/8'),
    default: '',
    help: 'Addresses of reverse proxies whose X-Forwarded-For is trusted, separated by commas',
  },
  drainSeconds: {
    env: 'CDE_SATELLITE_DRAIN_SECONDS',
    schema: seconds,
    default: '30',
    help: 'How long it waits at shutdown for its sessions to move elsewhere',
  },
  logLevel: {
    env: 'CDE_LOG_LEVEL',
    schema: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'silent']),
    default: 'info',
    help: 'Minimum log level',
  },
} as const;

export interface Settings extends Omit<SettingValues<typeof settings>, 'server' | 'token' | 'url'> {
  server: string;
  token: string;
  url: string;
}

/** Reads and checks the satellite's settings. Throws SettingsError. */
export function readSettings(args: string[], env: NodeJS.ProcessEnv): Settings {
  const given = read(settings, args, env);
  for (const key of ['server', 'token'] as const)
    if (given[key] === undefined)
      throw new SettingsError(`--${key} (${settings[key].env}) is missing.`, `${settings[key].help}.`);
  if ((given.tlsCert === undefined) !== (given.tlsKey === undefined))
    throw new SettingsError(
      '--tls-cert and --tls-key go together.',
      'Set both, or neither behind a proxy that ends TLS.',
    );
  if (isWildcardHost(given.listen.host) && given.url === undefined)
    throw new SettingsError(
      '--url (CDE_SATELLITE_URL) is missing.',
      'Set the https URL at which others reach this satellite, or listen on a single address.',
    );
  const url = given.url ?? listenUrl(given.listen, { tls: given.tlsCert !== undefined });
  return { ...given, server: given.server!, token: given.token!, url };
}
