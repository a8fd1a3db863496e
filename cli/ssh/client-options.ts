import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { sshCiphers } from '@cde/tunnel/streams/ssh2.ts';
import { configDir } from '../config/config.ts';
import { knownHostsFile } from './known-hosts.ts';

/** A word for the shell that runs a ProxyCommand, whichever it is. */
function shellWord(text: string): string {
  return /^[\w@+:,./=-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** In ssh's configuration a value with a space stands in double quotes. */
export function configWord(path: string): string {
  return /[\s"#']/.test(path) ? `"${path.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"` : path;
}

/** This node and this cde, by absolute path: a ProxyCommand runs in any directory and with any PATH. */
export const self: readonly string[] = [
  process.execPath,
  fileURLToPath(new URL('../cde.mjs', import.meta.url)),
];

/**
 * Which server and which configuration are meant, where these come from the environment: for a ProxyCommand that
 * is kept, since an editor starts ssh with another one.
 */
export function keptSettings(env: NodeJS.ProcessEnv): string[] {
  const settings: string[] = [];
  if (configDir(env) !== join(homedir(), '.config', 'cde')) settings.push(`CDE_CONFIG_DIR=${configDir(env)}`);
  if (env.CDE_SERVER) settings.push(`CDE_SERVER=${env.CDE_SERVER}`);
  if (env.CDE_URL) settings.push(`CDE_URL=${env.CDE_URL}`);
  return settings;
}

/** The ProxyCommand to a workspace; `host` is a host name, or `%n`. */
function proxyCommand(host: string, settings: string[], flags: string[]): string {
  const words = [...(settings.length > 0 ? ['env', ...settings] : []), ...self, 'ssh', '--stdio', ...flags];
  // In quotes even though ssh refuses odd host names by now: older clients put them into a shell as they are.
  return `${words.map((word) => shellWord(word).replaceAll('%', '%%')).join(' ')} '${host}'`;
}

/** Flags of `cde ssh --stdio` that a kept or handed-down ProxyCommand carries. */
export function stdioFlags({ path, verbose }: { path: string | undefined; verbose?: boolean }): string[] {
  return [...(path && path !== 'auto' ? [`--path=${path}`] : []), ...(verbose ? ['--verbose'] : [])];
}

/** What every connection to a workspace needs, as ssh's configuration has it. */
export function hostOptions(
  env: NodeJS.ProcessEnv,
  host: string,
  settings: string[],
  flags: string[] = [],
): [string, string][] {
  return [
    ['ProxyCommand', proxyCommand(host, settings, flags)],
    ['UserKnownHostsFile', configWord(knownHostsFile(env).replaceAll('%', '%%'))],
    ['GlobalKnownHostsFile', '/dev/null'],
    // The key is pinned by what the server vouches for; a question could only be answered wrongly.
    ['StrictHostKeyChecking', 'yes'],
    ['UpdateHostKeys', 'no'],
    ['CheckHostIP', 'no'],
    // The port is part of the name in known_hosts when it is not 22.
    ['Port', '22'],
    // The tunnel has encrypted it already, so what costs least comes first. OpenSSH's own order would make it AES-CTR and
    // a SHA-256 of each packet: a sixth of the throughput.
    ['Ciphers', sshCiphers.join(',')],
    // cde knows when the workspace is gone, and ends the connection then. Until then a silence is an outage that
    // the session survives, and ssh must not count it.
    ['ServerAliveInterval', '0'],
  ];
}
