import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure } from '../failure/failure.ts';
import { withLock, writeAtomically } from './files.ts';
import { aliasPattern, freeAlias } from './server-alias.ts';

/** The stored login of one server. */
export interface Login {
  /** The short name of the server: `--server NAME`, and `web.NAME.cde` in ssh. Unique among the servers. */
  alias: string;
  token: string;
  username: string;
  /** `given`: the user supplied the token, so logout must not revoke it. */
  source: 'browser' | 'given' | 'first-start';
  /** Set until all steps of the first start are done, so that the next start completes them. */
  firstStart?: 'unfinished';
}

export interface Config {
  version: 1;
  /** The URL of the server that commands talk to. */
  current: string | null;
  servers: Record<string, Login>;
}

/** `CDE_CONFIG_DIR`, else `$XDG_CONFIG_HOME/cde`, else `~/.config/cde`. */
export function configDir(env: NodeJS.ProcessEnv): string {
  if (env.CDE_CONFIG_DIR) return env.CDE_CONFIG_DIR;
  return join(env.XDG_CONFIG_HOME || join(env.HOME || homedir(), '.config'), 'cde');
}

export function configFile(env: NodeJS.ProcessEnv): string {
  return join(configDir(env), 'config.json');
}

/** Reads the configuration, which is empty if the file is missing. Throws `config-invalid`. */
export function readConfig(env: NodeJS.ProcessEnv): Config {
  const file = configFile(env);
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { version: 1, current: null, servers: {} };
    throw error;
  }
  try {
    const config = JSON.parse(text) as Config;
    if (config.version !== 1 || typeof config.servers !== 'object' || config.servers === null)
      throw new Error(`version ${config.version} is not known to this cde`);
    return withAliases(config);
  } catch (cause) {
    throw new Failure('config-invalid', `${file} is not a configuration of cde.`, {
      detail: (cause as Error).message,
      hint: 'Remove the file, then run: cde login',
      cause,
    });
  }
}

/** Gives each server an alias, because files of earlier releases have none. */
function withAliases(config: Config): Config {
  const seen = new Set<string>();
  for (const [url, login] of Object.entries(config.servers)) {
    if (!URL.canParse(url)) throw new Error(`${JSON.stringify(url)} is not the address of a server`);
    if (!aliasPattern.test(login.alias ?? '') || seen.has(login.alias)) login.alias = freeAlias(config, url);
    seen.add(login.alias);
  }
  return config;
}

/** Changes the configuration atomically under a lock. The file is readable only by its owner. */
export async function changeConfig(env: NodeJS.ProcessEnv, change: (config: Config) => void): Promise<void> {
  const file = configFile(env);
  await withLock(file, () => {
    const config = readConfig(env);
    change(config);
    writeAtomically(file, `${JSON.stringify(config, null, 2)}\n`, 0o600);
  });
}

/** The URL of a server by its alias; undefined if no signed-in server has it. */
export function urlOfAlias(config: Config, alias: string): string | undefined {
  return Object.entries(config.servers).find(([, login]) => login.alias === alias.toLowerCase())?.[0];
}

/** The URL of a server, given its alias or address. Throws `server-unknown`. */
export function namedServer(config: Config, text: string): string {
  const known = urlOfAlias(config, text);
  if (known !== undefined) return known;
  // Without a dot, colon or slash it can only be an alias.
  if (/[.:/]/.test(text) || text === 'localhost') return serverUrl(text);
  throw serverUnknown(config, text);
}

/** The error for an unknown alias, with the known ones. */
export function serverUnknown(config: Config, text: string): Failure {
  const aliases = Object.values(config.servers).map(({ alias }) => alias);
  return new Failure('server-unknown', `You are not signed in to a server named ${JSON.stringify(text)}.`, {
    exitCode: exitCodes.notFound,
    hint:
      aliases.length > 0
        ? `Signed in to: ${aliases.join(', ')}. Add another: cde login URL --name ${aliasPattern.test(text) ? text : 'NAME'}`
        : 'Run: cde login https://your-server',
  });
}

/** Parses a server's URL as typed: without a scheme it is https, or http on this machine. Must not have a path. */
export function serverUrl(text: string): string {
  const bare = /^[a-z][a-z0-9+.-]*:\/\//i.test(text)
    ? text
    : `${/^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:|\/|$)/.test(text) ? 'http' : 'https'}://${text}`;
  const url = URL.parse(bare);
  if (!url || !/^https?:$/.test(url.protocol) || !url.hostname || url.username || url.password)
    throw new Failure('usage', `${JSON.stringify(text)} is not the address of a server.`, {
      exitCode: exitCodes.usage,
      hint: 'Write it like https://cde.example.com or 127.0.0.1:7080.',
    });
  return `${url.origin}${url.pathname.replace(/\/+$/, '')}`;
}
