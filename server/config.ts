import { isIP } from 'node:net';
import { homedir, userInfo } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { PathKind } from '@cde/api/agent.ts';
import { HostPort, WildcardName } from '@cde/api/names.ts';
import { PortLevel } from '@cde/api/ports.ts';
import { UdpListen } from '@cde/satellite/stun-offer.ts';
import { z } from 'zod';

const onOffAuto = z.enum(['auto', 'on', 'off']);
const days = z.coerce.number().min(0).max(3650);
const listenAddress = z
  .string()
  .regex(/^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$/, 'write HOST:PORT, for example 127.0.0.1:7080')
  .transform((text) => {
    const at = text.lastIndexOf(':');
    return { host: text.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(text.slice(at + 1)) };
  })
  .refine(({ port }) => port <= 65535, 'a port is at most 65535');

/**
 * What is wrong with a secret key, from the variable or from the file: null is nothing. Whoever can guess it can make the
 * tokens of every agent.
 */
export function secretKeyIssue(text: string): string | null {
  const key = text.trim();
  if (key === '') return 'it is empty';
  if (key.length < 32) return 'it has fewer than 32 characters';
  if (key.length > 4096) return 'it has more than 4096 characters';
  if (/\p{C}/u.test(key)) return 'it has characters that are not text';
  if (new Set(key).size < 8) return 'it has fewer than 8 different characters';
  return null;
}

/** Everybody is told this URL, so it holds no credentials; and paths are put at its end. */
const plainUrl = z.url({ protocol: /^https?$/ }).refine((text) => {
  if (!URL.canParse(text)) return false;
  const { username, password, search, hash } = new URL(text);
  return [username, password, search, hash].every((part) => part === '');
}, 'write https://HOST without a user, a query or a fragment');
const imageName = z
  .string()
  .regex(/^[\w][\w./:@-]*$/, 'write an image as REGISTRY/NAME:TAG')
  .refine((text) => !text.includes('://'), 'write the image without https://');
const proxies = z.string().refine(
  (text) =>
    text.split(',').every((each) => {
      const [address = '', bits] = each.trim().split('/');
      if (['', 'loopback', 'linklocal', 'uniquelocal'].includes(each.trim())) return true;
      const version = isIP(address);
      return (
        version !== 0 &&
        (bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (version === 4 ? 32 : 128)))
      );
    }),
  'write addresses or ranges with commas between, such as 10.0.0.0/8',
);

/** Every setting: its flag is the kebab-case of its key, its variable `CDE_` + upper snake case unless named. */
const settings = {
  listen: { schema: listenAddress, default: '127.0.0.1:7080', help: 'Address to listen on' },
  accessUrl: {
    schema: plainUrl,
    default: undefined,
    help: 'URL that users and agents reach the server by',
  },
  replicaUrl: {
    schema: plainUrl,
    default: undefined,
    help: 'URL that agents reach this one replica by, where it is not the access URL: in a cluster its pod IP',
  },
  dataDir: {
    schema: z.string().min(1),
    default: undefined,
    help: 'Directory of homes, keys and the embedded database',
  },
  databaseUrl: {
    schema: z.string().regex(/^postgres(ql)?:\/\//, 'a URL that starts with postgres://'),
    env: 'DATABASE_URL',
    default: undefined,
    help: 'PostgreSQL 15 or newer; without it the embedded one runs',
  },
  databaseWait: {
    schema: z.coerce.number().min(0).max(3600),
    default: '60',
    help: 'Seconds to wait at the start for a database that does not answer',
  },
  secretKey: {
    schema: z.string().superRefine((text, context) => {
      const fault = secretKeyIssue(text);
      if (fault !== null) context.addIssue({ code: 'custom', message: fault });
    }),
    default: undefined,
    help: 'Seals secrets in the database; without it a key file in the data directory. Replicas share it',
  },
  localProvider: {
    schema: onOffAuto,
    default: 'auto',
    help: 'Workspaces on this machine: auto means on only when listening on loopback',
  },
  isolation: {
    schema: z.enum(['auto', 'bwrap', 'unshare', 'none']),
    default: 'auto',
    help: 'Of the local provider',
  },
  localNetwork: {
    schema: z.enum(['auto', 'veth', 'pasta', 'shared']),
    default: 'auto',
    help: "Network of the local provider's workspaces",
  },
  cluster: {
    schema: z.string().min(1),
    default: undefined,
    help: 'A Kubernetes cluster to add as `default`: in-cluster, or the path of a kubeconfig',
  },
  clusterPublicEndpoint: {
    schema: plainUrl,
    default: undefined,
    help: "URL of that cluster's API server as developers reach it, for their kubectl",
  },
  agentImage: {
    schema: imageName,
    default: 'cde-agent:0.1.0',
    help: 'Image that brings the agent into pods; docker/Dockerfile makes it',
  },
  builderImage: {
    schema: imageName,
    default: undefined,
    help: 'Image of builders whose template names none (moby/buildkit); rootless ones add -rootless to it',
  },
  buildLogs: {
    schema: z.coerce.number().int().min(1).max(10_000),
    default: '20',
    help: 'How many builds of each workspace keep their log, the newest ones',
  },
  foreignUpdates: {
    schema: z.enum(['on', 'off']),
    default: 'off',
    help: "Whether owners of the installation may update other people's workspaces",
  },
  homeGraceDays: { schema: days, default: '7', help: 'How long the home of a deleted workspace is kept' },
  orphans: {
    schema: z.enum(['report', 'clean']),
    default: 'report',
    help: 'What becomes of namespaces without a workspace: reported, or cleaned, their homes kept',
  },
  paths: {
    schema: z
      .string()
      .transform((text) => text.split(',').map((each) => each.trim()))
      .pipe(z.array(PathKind).min(1)),
    default: PathKind.options.join(','),
    help: 'Kinds of path that sessions may take, with commas between; a template may allow fewer',
  },
  udp: {
    schema: UdpListen,
    default: undefined,
    help: 'PORT or HOST:PORT at which it answers STUN, by UDP, or off; without it the port of --listen',
  },
  udpAddress: {
    schema: HostPort,
    default: undefined,
    help: 'HOST:PORT at which others reach that; without it the host of the access URL',
  },
  portHost: {
    schema: z.literal('off').or(WildcardName),
    default: undefined,
    help: 'Wildcard name under which shared ports are served; off: by path. Without it *.localhost on a loopback address',
  },
  portSharing: {
    schema: z.enum(['off', ...PortLevel.options]),
    default: 'public',
    help: 'The most that a port may be shared with: off, owner, signed-in, public',
  },
  region: { schema: z.string().max(80), default: '', help: "Region of the server's own satellite" },
  sessionDays: { schema: days, default: '14', help: 'How long a browser stays signed in' },
  passwordLogin: { schema: z.enum(['on', 'off']), default: 'on', help: 'Sign-in with a password' },
  oidcIssuer: { schema: z.url(), default: undefined, help: 'OpenID Connect issuer' },
  oidcClientId: { schema: z.string().min(1), default: undefined, help: 'OpenID Connect client id' },
  oidcClientSecret: { schema: z.string().min(1), default: undefined, help: 'OpenID Connect client secret' },
  oidcName: {
    schema: z.string().min(1).max(40),
    default: 'single sign-on',
    help: 'What the sign-in button says',
  },
  concurrency: {
    schema: z.coerce.number().int().min(1).max(60),
    default: '10',
    help: 'Reconcile steps at once',
  },
  trustProxy: {
    schema: proxies,
    default: '',
    help: 'Addresses of reverse proxies whose X-Forwarded-For is believed, comma separated',
  },
  logLevel: {
    schema: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'silent']),
    default: 'info',
    help: 'Least severe log level',
  },
} as const;

type Settings = typeof settings;
type Values = {
  [K in keyof Settings]: Settings[K]['default'] extends undefined
    ? z.output<Settings[K]['schema']> | undefined
    : z.output<Settings[K]['schema']>;
};

export interface Config extends Omit<Values, 'accessUrl' | 'dataDir' | 'localProvider' | 'portHost'> {
  accessUrl: string;
  dataDir: string;
  localProvider: boolean;
  /** What the names of shared ports end with, `.dev.example.com`; null: they are served by path. */
  portHost: string | null;
  /** True when only this machine can reach the server. */
  loopback: boolean;
}

/** A setting that cannot be used; `main.ts` prints it and exits with 2. */
export class ConfigError extends Error {
  readonly hint: string;
  constructor(message: string, hint: string) {
    super(message);
    this.name = 'ConfigError';
    this.hint = hint;
  }
}

const kebab = (key: string) => key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
const variable = (key: string) => `CDE_${kebab(key).replaceAll('-', '_').toUpperCase()}`;
const environmentName = (key: keyof Settings) => {
  const setting = settings[key];
  return 'env' in setting ? setting.env : variable(key);
};

/** Variables of other programs of cde, and of the server's tests. */
const otherVariables = /^CDE_(CONFIG_DIR|SERVER|TOKEN|WORKSPACE|NAMESPACE|CHECK_REQUIRED|TEST_\w+|PORT_\d+)$/;

/** Names in the environment that look like settings and are none. */
export function unknownSettings(env: NodeJS.ProcessEnv): string[] {
  const known = new Set<string>((Object.keys(settings) as (keyof Settings)[]).map(environmentName));
  return Object.keys(env).filter(
    (name) => name.startsWith('CDE_') && !known.has(name) && !otherVariables.test(name),
  );
}

/** `--help` of the server, one line a setting. */
export function describeSettings(): string {
  return (Object.keys(settings) as (keyof Settings)[])
    .map((key) => {
      const setting = settings[key];
      const fallback = setting.default ? ` (default ${setting.default})` : '';
      return `  --${kebab(key).padEnd(20)} ${environmentName(key).padEnd(24)} ${setting.help}${fallback}`;
    })
    .join('\n');
}

function defaultDataDir(env: NodeJS.ProcessEnv): string {
  if (process.platform !== 'win32' && userInfo().uid === 0) return '/var/lib/cde';
  return join(env.XDG_DATA_HOME || join(homedir(), '.local', 'share'), 'cde');
}

/** Browsers look for every name under `localhost` on their own machine, so that there ports need no DNS. */
function portSuffix(given: string | undefined, accessUrl: string): string | null {
  const { hostname } = new URL(accessUrl);
  if (given !== undefined && given !== 'off') {
    const suffix = given.slice(1);
    if (hostname.endsWith(suffix) && hostname.includes('--'))
      throw new ConfigError(
        `The access URL ${accessUrl} is the name of a port under ${given}.`,
        'Give the dashboard another name.',
      );
    return suffix;
  }
  return given === undefined && /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(hostname)
    ? '.localhost'
    : null;
}

/** Reads flags, then environment, then defaults; throws ConfigError at the first setting it cannot use. */
export function readConfig(args: string[], env: NodeJS.ProcessEnv): Config {
  let flags: Record<string, string | boolean | undefined>;
  try {
    const options = Object.fromEntries(
      Object.keys(settings).map((key) => [kebab(key), { type: 'string' as const }]),
    );
    flags = parseArgs({ args, options, strict: true, allowPositionals: false }).values;
  } catch (error) {
    throw new ConfigError((error as Error).message, 'Run with --help for the list of settings.');
  }
  const values: Record<string, unknown> = {};
  for (const key of Object.keys(settings) as (keyof Settings)[]) {
    const setting = settings[key];
    const flag = flags[kebab(key)];
    // An empty variable is an unset one, as Compose files and CI systems write it.
    const text = typeof flag === 'string' ? flag : env[environmentName(key)] || setting.default;
    if (text === undefined) continue;
    const parsed = setting.schema.safeParse(text);
    if (!parsed.success) {
      const secret = key === 'databaseUrl' || key === 'secretKey' || key === 'oidcClientSecret';
      const from = typeof flag === 'string' ? `--${kebab(key)}` : environmentName(key);
      throw new ConfigError(
        `${from}${secret ? '' : ` is ${JSON.stringify(text)}, which`} cannot be used: ${parsed.error.issues[0]?.message}.`,
        `${setting.help}.`,
      );
    }
    values[key] = parsed.data;
  }
  const given = values as Values;
  const { host, port } = given.listen;
  const loopback = host === 'localhost' || host === '::1' || /^127\./.test(host);
  const urlHost = host === '0.0.0.0' || host === '::' ? 'localhost' : host.includes(':') ? `[${host}]` : host;
  if (given.oidcIssuer && !given.oidcClientId)
    throw new ConfigError(
      'CDE_OIDC_ISSUER is set but CDE_OIDC_CLIENT_ID is not.',
      'Set both, and CDE_OIDC_CLIENT_SECRET for a confidential client.',
    );
  if (given.passwordLogin === 'off' && !given.oidcIssuer)
    throw new ConfigError(
      'Password login is off and no OIDC issuer is set: nobody could sign in.',
      'Set CDE_OIDC_ISSUER, or leave CDE_PASSWORD_LOGIN on.',
    );
  const accessUrl = (given.accessUrl ?? `http://${urlHost}:${port}`).replace(/\/+$/, '');
  return {
    ...given,
    accessUrl,
    portHost: portSuffix(given.portHost, accessUrl),
    dataDir: resolve(given.dataDir ?? defaultDataDir(env)),
    localProvider: given.localProvider === 'on' || (given.localProvider === 'auto' && loopback),
    loopback,
  };
}
