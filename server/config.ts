import { isIP } from 'node:net';
import { homedir, userInfo } from 'node:os';
import { join, resolve } from 'node:path';
import { isLoopbackHost, isWildcardHost, listenAddress, listenUrl } from '@cde/api/addresses.ts';
import { PathKind } from '@cde/api/agent.ts';
import { HostPort, WildcardName } from '@cde/api/names.ts';
import { PortLevel } from '@cde/api/ports.ts';
import { addressPolicies } from '@cde/api/recorded-addresses.ts';
import {
  describeSettings as describe,
  kebabCase,
  readSettings,
  type Setting,
  SettingsError,
} from '@cde/api/settings.ts';
import { UdpListen } from '@cde/satellite/stun/service.ts';
import { z } from 'zod';
import { CertificateAuthorities } from './certificate-authorities.ts';
import { type EngineAddress, engineUrlPattern, readEngineAddress } from './engine-address.ts';
import { type IncusAddress, readIncusAddress } from './incus-address.ts';

const onOffAuto = z.enum(['auto', 'on', 'off']);
const days = z.coerce.number().min(0).max(3650);
/**
 * Why a secret key (from the variable or the file) is unacceptable, or null. Anyone who guesses it can forge the tokens of
 * all agents.
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

/** This URL is public, so it must not contain credentials, and paths are appended to it. */
const engineUrl = z.string().regex(engineUrlPattern, 'unix:///PATH, tcp://HOST:PORT or ssh://USER@HOST');
const incusUrl = z.string().regex(/^(unix:\/\/\/.+|https:\/\/[^/@]+)$/, 'unix:///PATH or https://HOST:8443');
const GceProject = z
  .string()
  .regex(/^[a-z][a-z0-9.:-]+\/[a-z]+-[a-z]+\d+$/, 'PROJECT/REGION, such as acme-dev/europe-west3')
  .transform((text) => {
    const [project = '', region = ''] = text.split('/');
    return { project, region };
  });
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
  'write addresses or ranges separated by commas, such as 10.0.0.0/8',
);

/** All settings. The flag is the key in kebab-case, and the variable `CDE_` plus upper snake case unless `env` names it. */
const settings = {
  listen: {
    schema: listenAddress('127.0.0.1:7080'),
    default: '127.0.0.1:7080',
    help: 'Address to listen on',
  },
  accessUrl: {
    schema: plainUrl,
    default: undefined,
    help: 'URL of the server for users and agents',
  },
  replicaUrl: {
    schema: plainUrl,
    default: undefined,
    help: 'URL of this replica for agents, if different from the access URL: in a cluster, its pod IP',
  },
  dataDir: {
    schema: z.string().min(1),
    default: undefined,
    help: 'Directory for homes, keys and the embedded database',
  },
  databaseUrl: {
    schema: z.string().regex(/^postgres(ql)?:\/\//, 'a URL that starts with postgres://'),
    env: 'DATABASE_URL',
    default: undefined,
    help: 'PostgreSQL 15 or newer (default: an embedded PostgreSQL)',
  },
  databaseWait: {
    schema: z.coerce.number().min(0).max(3600),
    default: '60',
    help: 'Seconds to wait for an unreachable database at startup',
  },
  secretKey: {
    schema: z.string().superRefine((text, context) => {
      const fault = secretKeyIssue(text);
      if (fault !== null) context.addIssue({ code: 'custom', message: fault });
    }),
    default: undefined,
    help: 'Key that encrypts secrets in the database, shared by all replicas (default: a key file in the data directory)',
  },
  localProvider: {
    schema: onOffAuto,
    default: 'auto',
    help: 'Run workspaces on this machine; auto: only when listening on loopback',
  },
  isolation: {
    schema: z.enum(['auto', 'bwrap', 'unshare', 'none']),
    default: 'auto',
    help: 'Isolation of workspaces of the local provider',
  },
  localNetwork: {
    schema: z.enum(['auto', 'veth', 'pasta', 'shared']),
    default: 'auto',
    help: 'Network of workspaces of the local provider',
  },
  docker: {
    schema: z.enum(['auto', 'off']).or(engineUrl),
    default: 'auto',
    help: 'Docker engine for workspaces: unix:///PATH, tcp://HOST:PORT, ssh://USER@HOST or off; auto: that of this machine, only when listening on loopback',
  },
  dockerCertificates: {
    schema: z.string().min(1),
    default: undefined,
    help: 'Directory with ca.pem, cert.pem and key.pem for a Docker engine at tcp://',
  },
  dockerConfig: {
    schema: z.string().min(1),
    default: undefined,
    help: 'config.json with credentials of registries for Docker (default: ~/.docker/config.json)',
  },
  dockerAgentImage: {
    schema: imageName,
    default: undefined,
    help: "Image that installs the agent in Docker workspaces (default: this server's own agent, for images with glibc)",
  },
  incus: {
    schema: z.literal('off').or(incusUrl),
    default: 'off',
    help: 'Incus server for workspaces: unix:///PATH, https://HOST:8443 or off',
  },
  incusCertificates: {
    schema: z.string().min(1),
    default: undefined,
    help: 'Directory with client.crt, client.key and server.crt for an Incus server at https://',
  },
  ec2: {
    schema: z.literal('off').or(z.string().regex(/^[a-z]{2}(-[a-z]+)+-\d$/, 'a region such as eu-central-1')),
    default: 'off',
    help: 'AWS region for workspaces on EC2, or off; credentials as the AWS command finds them',
  },
  ec2Endpoint: {
    schema: plainUrl,
    default: undefined,
    help: "URL of the EC2 API, if not the region's public one",
  },
  gce: {
    schema: z.literal('off').or(GceProject),
    default: 'off',
    help: 'Google Cloud project and region for workspaces on Compute Engine (PROJECT/REGION), or off; credentials as gcloud finds them',
  },
  gceEndpoint: {
    schema: plainUrl,
    default: undefined,
    help: 'URL of the Compute Engine API, if not the public one',
  },
  cluster: {
    schema: z.string().min(1),
    default: undefined,
    help: 'Kubernetes cluster to add as `default`: in-cluster, or the path of a kubeconfig',
  },
  clusterPublicEndpoint: {
    schema: plainUrl,
    default: undefined,
    help: "URL of that cluster's API server for developers' kubectl",
  },
  agentImage: {
    schema: imageName,
    default: 'cde-agent:0.1.0',
    help: 'Image that installs the agent in pods, built by docker/Dockerfile',
  },
  agentCa: {
    schema: CertificateAuthorities,
    default: undefined,
    help: 'PEM file of certificate authorities that agents in pods and virtual machines of clouds trust beside the public ones',
  },
  builderImage: {
    schema: imageName,
    default: undefined,
    help: 'Image of builders whose template does not set one (moby/buildkit); rootless builders append -rootless',
  },
  buildLogs: {
    schema: z.coerce.number().int().min(1).max(10_000),
    default: '20',
    help: 'Number of newest builds of each workspace whose logs are retained',
  },
  foreignUpdates: {
    schema: z.enum(['on', 'off']),
    default: 'off',
    help: "Whether owners of the installation can update other users' workspaces",
  },
  auditDays: {
    schema: days.min(1),
    default: '400',
    help: 'Days to retain entries of the audit log',
  },
  homeGraceDays: { schema: days, default: '7', help: 'Days to retain the home of a deleted workspace' },
  nodePoolLabel: {
    schema: z
      .string()
      .max(317)
      .regex(/^[A-Za-z0-9][A-Za-z0-9./_-]*$/, 'must be the name of a label'),
    default: undefined,
    help: 'Kubernetes label of nodes that names their pool, beside those of the large clouds and Karpenter',
  },
  orphans: {
    schema: z.enum(['report', 'clean']),
    default: 'report',
    help: 'What to do with namespaces and containers that have no workspace: report them, or delete them and keep their homes',
  },
  paths: {
    schema: z
      .string()
      .transform((text) => text.split(',').map((each) => each.trim()))
      .pipe(z.array(PathKind).min(1)),
    default: PathKind.options.join(','),
    help: 'Kinds of path that sessions can use, separated by commas; a template can allow fewer',
  },
  udp: {
    schema: UdpListen,
    default: undefined,
    help: 'UDP PORT or HOST:PORT for STUN, or off (default: the port of --listen)',
  },
  udpAddress: {
    schema: HostPort,
    default: undefined,
    help: 'Public HOST:PORT of --udp (default: the host of the access URL)',
  },
  portHost: {
    schema: z.literal('off').or(WildcardName),
    default: undefined,
    help: 'Wildcard host name for shared ports, or off to serve them by path (default: *.localhost on a loopback address)',
  },
  portSharing: {
    schema: z.enum(['off', ...PortLevel.options]),
    default: 'public',
    help: 'Widest level that ports can be shared at: off, owner, signed-in, public',
  },
  recordingAddresses: {
    schema: z.enum(addressPolicies),
    default: 'full',
    help: 'What recordings of sessions keep of the addresses of direct paths: full, network (/24 or /48), none',
  },
  recordingSampleDays: {
    schema: days.min(1).max(60),
    default: '2',
    help: 'Days to retain what sessions record every ten seconds',
  },
  recordingMinuteDays: {
    schema: days.min(1),
    default: '30',
    help: 'Days to retain it by the minute, and the events of sessions',
  },
  recordingDays: {
    schema: days.min(1),
    default: '365',
    help: 'Days to retain it by the hour, and sessions with their incidents',
  },
  recordingGib: {
    schema: z.coerce.number().min(0.1).max(100_000),
    default: '20',
    help: 'GiB that the recordings of sessions can take; beyond it the oldest are deleted early',
  },
  region: { schema: z.string().max(80), default: '', help: 'Region of the embedded satellite' },
  sessionDays: { schema: days, default: '14', help: 'Days that a browser stays signed in' },
  passwordLogin: { schema: z.enum(['on', 'off']), default: 'on', help: 'Allow sign-in with a password' },
  oidcIssuer: { schema: z.url(), default: undefined, help: 'OpenID Connect issuer' },
  oidcClientId: { schema: z.string().min(1), default: undefined, help: 'OpenID Connect client id' },
  oidcClientSecret: { schema: z.string().min(1), default: undefined, help: 'OpenID Connect client secret' },
  oidcName: {
    schema: z.string().min(1).max(40),
    default: 'single sign-on',
    help: 'Label of the single sign-on button',
  },
  concurrency: {
    schema: z.coerce.number().int().min(1).max(60),
    default: '10',
    help: 'Maximum number of concurrent reconcile steps',
  },
  trustProxy: {
    schema: proxies,
    default: '',
    help: 'Addresses of reverse proxies whose X-Forwarded-For is trusted, separated by commas',
  },
  logLevel: {
    schema: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'silent']),
    default: 'info',
    help: 'Minimum log level',
  },
} as const;

type Settings = typeof settings;
type Values = {
  [K in keyof Settings]: Settings[K]['default'] extends undefined
    ? z.output<Settings[K]['schema']> | undefined
    : z.output<Settings[K]['schema']>;
};

export interface Config
  extends Omit<
    Values,
    | 'accessUrl'
    | 'dataDir'
    | 'localProvider'
    | 'portHost'
    | 'docker'
    | 'dockerCertificates'
    | 'incus'
    | 'incusCertificates'
    | 'ec2'
    | 'ec2Endpoint'
    | 'gce'
    | 'gceEndpoint'
  > {
  accessUrl: string;
  dataDir: string;
  localProvider: boolean;
  /** The Docker engine; null: no workspaces on Docker. */
  docker: EngineAddress | null;
  /** The Incus server; null: no workspaces on Incus. */
  incus: IncusAddress | null;
  /** The region for workspaces on EC2; null: none. */
  ec2: { region: string; endpoint: string | undefined } | null;
  /** The project and region for workspaces on Google Compute; null: none. */
  gce: { project: string; region: string; endpoint: string | undefined } | null;
  /** The suffix of the host names of shared ports (`.dev.example.com`), or null if they are served by path. */
  portHost: string | null;
  /** Whether only this machine can reach the server. */
  loopback: boolean;
}

const variable = (key: string) => `CDE_${kebabCase(key).replaceAll('-', '_').toUpperCase()}`;
const environmentName = (key: keyof Settings) => {
  const setting = settings[key];
  return 'env' in setting ? setting.env : variable(key);
};

/** Variables of other cde programs and of the server's tests. */
const otherVariables = /^CDE_(CONFIG_DIR|SERVER|TOKEN|WORKSPACE|NAMESPACE|CHECK_REQUIRED|TEST_\w+|PORT_\d+)$/;

/** Environment variables that look like settings but are not. */
export function unknownSettings(env: NodeJS.ProcessEnv): string[] {
  const known = new Set<string>((Object.keys(settings) as (keyof Settings)[]).map(environmentName));
  return Object.keys(env).filter(
    (name) => name.startsWith('CDE_') && !known.has(name) && !otherVariables.test(name),
  );
}

const secrets = new Set<string>(['databaseUrl', 'secretKey', 'oidcClientSecret']);
const definitions = Object.fromEntries(
  (Object.keys(settings) as (keyof Settings)[]).map((key): [string, Setting] => [
    key,
    { ...settings[key], env: environmentName(key), isSecret: secrets.has(key) },
  ]),
);

/** The settings in the server's `--help`, one per line. */
export const describeSettings = (): string => describe(definitions, { flag: 20, env: 24 });

function defaultDataDir(env: NodeJS.ProcessEnv): string {
  if (process.platform !== 'win32' && userInfo().uid === 0) return '/var/lib/cde';
  return join(env.XDG_DATA_HOME || join(homedir(), '.local', 'share'), 'cde');
}

/** Browsers resolve every name under `localhost` to their own machine, so there ports need no DNS. */
function portSuffix(given: string | undefined, accessUrl: string): string | null {
  const { hostname } = new URL(accessUrl);
  if (given !== undefined && given !== 'off') {
    const suffix = given.slice(1);
    if (hostname.endsWith(suffix) && hostname.includes('--'))
      throw new SettingsError(
        `The access URL ${accessUrl} looks like a shared port under ${given}.`,
        'Choose another host name for the dashboard.',
      );
    return suffix;
  }
  return given === undefined && isLoopbackHost(hostname) ? '.localhost' : null;
}

/** Reads flags, then the environment, then defaults. Throws SettingsError at the first invalid setting. */
export function readConfig(args: string[], env: NodeJS.ProcessEnv): Config {
  const given = readSettings(definitions, args, env) as Values;
  const { host, port } = given.listen;
  const loopback = isLoopbackHost(host);
  if (given.oidcIssuer && !given.oidcClientId)
    throw new SettingsError(
      'CDE_OIDC_ISSUER is set but CDE_OIDC_CLIENT_ID is not.',
      'Set both. A confidential client also needs CDE_OIDC_CLIENT_SECRET.',
    );
  if (given.passwordLogin === 'off' && !given.oidcIssuer)
    throw new SettingsError(
      'Password sign-in is off and no OIDC issuer is set, so no one could sign in.',
      'Set CDE_OIDC_ISSUER, or set CDE_PASSWORD_LOGIN to on.',
    );
  const accessUrl = (
    given.accessUrl ?? listenUrl({ host: isWildcardHost(host) ? 'localhost' : host, port })
  ).replace(/\/+$/, '');
  return {
    ...given,
    accessUrl,
    portHost: portSuffix(given.portHost, accessUrl),
    dataDir: resolve(given.dataDir ?? defaultDataDir(env)),
    docker: readEngineAddress(given, env, { loopback, accessUrl }),
    incus: readIncusAddress(given),
    ec2: given.ec2 === 'off' ? null : { region: given.ec2, endpoint: given.ec2Endpoint },
    gce: given.gce === 'off' ? null : { ...given.gce, endpoint: given.gceEndpoint },
    dockerConfig: given.dockerConfig ?? join(homedir(), '.docker/config.json'),
    localProvider: given.localProvider === 'on' || (given.localProvider === 'auto' && loopback),
    loopback,
  };
}
