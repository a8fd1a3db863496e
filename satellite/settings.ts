import { parseArgs } from 'node:util';
import { HostPort } from '@cde/api/names.ts';
import { z } from 'zod';
import { compileTrustProxy } from './ports/gateway.ts';
import { UdpListen } from './stun/service.ts';

const address = z
  .string()
  .regex(/^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$/, 'write HOST:PORT, for example 0.0.0.0:7090')
  .transform((text) => {
    const at = text.lastIndexOf(':');
    return { host: text.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(text.slice(at + 1)) };
  })
  .refine(({ port }) => port <= 65535, 'a port is at most 65535');
const httpUrl = z.url({ protocol: /^https?$/ }).transform((text) => text.replace(/\/+$/, ''));
function isTrust(text: string): boolean {
  try {
    compileTrustProxy(text);
    return true;
  } catch {
    return false;
  }
}
const seconds = z.coerce.number().min(0).max(86_400);

/** Every setting: its flag is `--` and its key in kebab case. */
const settings = {
  server: { env: 'CDE_SERVER_URL', schema: httpUrl, help: "The server's URL" },
  token: {
    env: 'CDE_SATELLITE_TOKEN',
    schema: z.string().startsWith('cde_satellite_', 'it starts with cde_satellite_'),
    help: 'What `cde satellite add` printed; rather in the environment, where other users do not see it',
  },
  region: {
    env: 'CDE_SATELLITE_REGION',
    schema: z.string().max(80),
    help: 'Where it is, if it was added without a region; it stays',
  },
  listen: {
    env: 'CDE_SATELLITE_LISTEN',
    schema: address,
    default: '0.0.0.0:7090',
    help: 'Address to listen on',
  },
  url: {
    env: 'CDE_SATELLITE_URL',
    schema: httpUrl,
    help: 'How clients and agents reach it, from everywhere; without it the address it listens on',
  },
  udp: {
    env: 'CDE_SATELLITE_UDP',
    schema: UdpListen,
    help: 'PORT or HOST:PORT at which it answers STUN, by UDP, or off; without it the port of --listen',
  },
  udpAddress: {
    env: 'CDE_SATELLITE_UDP_ADDRESS',
    schema: HostPort,
    help: 'HOST:PORT at which others reach that; without it the host of --url',
  },
  tlsCert: { env: 'CDE_SATELLITE_TLS_CERT', schema: z.string(), help: 'File of the certificate chain (PEM)' },
  tlsKey: { env: 'CDE_SATELLITE_TLS_KEY', schema: z.string(), help: 'File of its key (PEM)' },
  metricsListen: {
    env: 'CDE_SATELLITE_METRICS_LISTEN',
    schema: address,
    help: 'Address of /metrics, which asks nobody who they are; without it there are none',
  },
  trustProxy: {
    env: 'CDE_SATELLITE_TRUST_PROXY',
    schema: z
      .string()
      .refine(isTrust, 'write addresses or networks with commas between, for example 10.0.0.0/8'),
    default: '',
    help: 'Addresses of proxies in front, with commas between: their word on a visitor of a port is believed',
  },
  drainSeconds: {
    env: 'CDE_SATELLITE_DRAIN_SECONDS',
    schema: seconds,
    default: '30',
    help: 'How long it waits for its sessions to go elsewhere when it is told to end',
  },
  logLevel: {
    env: 'CDE_LOG_LEVEL',
    schema: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'silent']),
    default: 'info',
    help: 'Least severe log level',
  },
} as const;

type All = typeof settings;
type Values = {
  [K in keyof All]: All[K] extends { default: string }
    ? z.output<All[K]['schema']>
    : z.output<All[K]['schema']> | undefined;
};
export interface Settings extends Omit<Values, 'server' | 'token' | 'url'> {
  server: string;
  token: string;
  url: string;
}

/** A setting that cannot be used; `main.ts` prints it and exits with 2. */
export class SettingsError extends Error {
  readonly hint: string;
  constructor(message: string, hint: string) {
    super(message);
    this.name = 'SettingsError';
    this.hint = hint;
  }
}

const flagOf = (key: string) => `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

/** `--help`, one line a setting. */
export function describeSettings(): string {
  return Object.entries(settings)
    .map(([key, setting]) => {
      const fallback = 'default' in setting ? ` (default ${setting.default})` : '';
      return `  ${flagOf(key).padEnd(18)} ${setting.env.padEnd(28)} ${setting.help}${fallback}`;
    })
    .join('\n');
}

/** Reads flags, then environment, then defaults; throws SettingsError at the first that it cannot use. */
export function readSettings(args: string[], env: NodeJS.ProcessEnv): Settings {
  let flags: Record<string, unknown>;
  try {
    const options = Object.fromEntries(
      Object.keys(settings).map((key) => [flagOf(key).slice(2), { type: 'string' as const }]),
    );
    flags = parseArgs({ args, options, strict: true, allowPositionals: false }).values;
  } catch (error) {
    throw new SettingsError((error as Error).message, 'Run with --help for the list of settings.');
  }
  const values: Record<string, unknown> = {};
  for (const [key, setting] of Object.entries(settings)) {
    const flag = flags[flagOf(key).slice(2)];
    const text =
      typeof flag === 'string'
        ? flag
        : env[setting.env] || ('default' in setting ? setting.default : undefined);
    if (text === undefined) continue;
    const parsed = setting.schema.safeParse(text);
    if (!parsed.success) {
      const from = typeof flag === 'string' ? flagOf(key) : setting.env;
      const what = key === 'token' ? '' : ` is ${JSON.stringify(text)}, which`;
      throw new SettingsError(
        `${from}${what} cannot be used: ${parsed.error.issues[0]?.message}.`,
        `${setting.help}.`,
      );
    }
    values[key] = parsed.data;
  }
  const given = values as Values;
  for (const key of ['server', 'token'] as const)
    if (given[key] === undefined)
      throw new SettingsError(`${flagOf(key)} (${settings[key].env}) is missing.`, `${settings[key].help}.`);
  if ((given.tlsCert === undefined) !== (given.tlsKey === undefined))
    throw new SettingsError(
      '--tls-cert and --tls-key go together.',
      'Give both, or neither behind an ingress.',
    );
  const { host, port } = given.listen;
  const everywhere = host === '0.0.0.0' || host === '::';
  if (everywhere && given.url === undefined)
    throw new SettingsError(
      '--url (CDE_SATELLITE_URL) is missing.',
      'Others have to reach it: give the https address of this satellite, or listen on one address only.',
    );
  const own = `${given.tlsCert ? 'https' : 'http'}://${host.includes(':') ? `[${host}]` : host}:${port}`;
  return { ...given, server: given.server!, token: given.token!, url: given.url ?? own };
}
