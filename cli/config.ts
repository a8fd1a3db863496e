import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { Failure } from './failure.ts';
import { withLock, writeAtomically } from './files.ts';

/** What `cde` knows of one server. */
export interface Login {
  token: string;
  username: string;
  /** `given`: the user brought the token, so that logout must not revoke it. */
  source: 'browser' | 'given' | 'first-start';
  /** Set while the steps of the first start are not all done, so that the next start completes them. */
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

/** Reads the configuration; an absent file is an empty one. Throws `config-invalid`. */
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
    return config;
  } catch (cause) {
    throw new Failure('config-invalid', `${file} is not a configuration of cde.`, {
      detail: (cause as Error).message,
      hint: 'Remove the file, then run: cde login',
      cause,
    });
  }
}

/** Changes the configuration: under a lock, in one step, readable by its owner only. */
export async function changeConfig(env: NodeJS.ProcessEnv, change: (config: Config) => void): Promise<void> {
  const file = configFile(env);
  await withLock(file, () => {
    const config = readConfig(env);
    change(config);
    writeAtomically(file, `${JSON.stringify(config, null, 2)}\n`, 0o600);
  });
}

/** A server's URL as a person types it: without a scheme it is https, and http on this machine; no path. */
export function serverUrl(text: string): string {
  const bare = /^[a-z][a-z0-9+.-]*:\/\//i.test(text)
    ? text
    : `${/^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:|\/|$)/.test(text) ? 'http' : 'https'}://${text}`;
  const url = URL.parse(bare);
  if (!url || !/^https?:$/.test(url.protocol) || !url.hostname || url.username || url.password)
    throw new Failure('usage', `${JSON.stringify(text)} is not the address of a server.`, {
      exitCode: 2,
      hint: 'Write it like https://cde.example.com or 127.0.0.1:7080.',
    });
  return `${url.origin}${url.pathname.replace(/\/+$/, '')}`;
}
