import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmdirSync,
  rmSync,
  statSync,
} from 'node:fs';
import { homedir, userInfo } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import type { Context } from '../command/context.ts';
import { type Blocks, line, note, type Result, result } from '../command/result.ts';
import { readConfig } from '../config/config.ts';
import { withLock, writeAtomically } from '../config/files.ts';
import type { ChosenServer } from '../connection/connection.ts';
import { listWorkspaces } from '../connection/endpoints.ts';
import { readAll } from '../connection/pages.ts';
import { Failure, toFailure } from '../failure/failure.ts';
import { sshHost } from '../workspaces/reference.ts';
import { configWord, hostOptions, keptSettings, stdioFlags } from './client-options.ts';
import { addInclude, removeInclude } from './config-file.ts';
import { knownHostsFile, pinHostKeys } from './known-hosts.ts';

export async function configSsh(
  context: Context,
  input: { remove: boolean; dryRun: boolean; sshConfig: string | undefined; path: string | undefined },
): Promise<Result> {
  const { env } = context;
  const sshConfig = resolve(input.sshConfig ?? join(homedir(), '.ssh', 'config'));
  const hostsFile = join(dirname(sshConfig), 'cde', 'config');
  const target = followLinks(sshConfig);
  const changed: string[] = [];
  const workspaces = input.remove || input.dryRun ? 0 : await pinAll(context);

  const work = () => {
    const before = existsSync(target) ? readFileSync(target, 'latin1') : null;
    const after = input.remove
      ? removeInclude(before ?? '')
      : addInclude(before ?? '', includePath(hostsFile));
    const hosts = input.remove ? null : hostsContent(context, input.path);
    if (readText(hostsFile) !== hosts) {
      changed.push(hostsFile);
      if (!input.dryRun) writeHosts(hostsFile, hosts);
    }
    if (after !== (before ?? '')) {
      changed.push(sshConfig);
      if (!input.dryRun) writeKeepingRights(target, after);
    }
  };
  if (input.dryRun) work();
  else await withLock(join(dirname(knownHostsFile(env)), 'config-ssh'), work);

  return result(
    { sshConfig, hostsFile, knownHosts: knownHostsFile(env), changed, dryRun: input.dryRun },
    () => [
      ...(input.dryRun
        ? planned(context, input, { sshConfig, hostsFile, changed })
        : input.remove
          ? [line(changed.length === 0 ? 'There was nothing to remove.' : `Removed from ${sshConfig}.`)]
          : included(env, { sshConfig, hostsFile, changed, hasWorkspaces: workspaces > 0 })),
      // ssh asks the password database, not HOME.
      !input.dryRun &&
        input.sshConfig === undefined &&
        homedir() !== userInfo().homedir &&
        note(
          `HOME is ${homedir()}, but ssh reads ${userInfo().homedir}/.ssh/config: use ssh -F ${sshConfig}`,
        ),
    ],
  );
}

interface Written {
  sshConfig: string;
  hostsFile: string;
  changed: string[];
}

/** What a dry run prints. */
function planned(
  context: Context,
  input: { remove: boolean; path: string | undefined },
  { sshConfig, hostsFile, changed }: Written,
): Blocks {
  const include = () => Buffer.from(addInclude('', includePath(hostsFile)), 'latin1');
  return [
    line(changed.length === 0 ? 'Nothing would change.' : `Would change: ${changed.join(', ')}`),
    !input.remove && line(`\nOn top of ${sshConfig}:\n${include()}`),
    !input.remove && line(`In ${hostsFile}:\n${hostsContent(context, input.path)}`),
  ];
}

function included(
  env: NodeJS.ProcessEnv,
  { sshConfig, hostsFile, changed, hasWorkspaces }: Written & { hasWorkspaces: boolean },
): Blocks {
  const { servers, current } = readConfig(env);
  const others = Object.entries(servers).filter(([url]) => url !== current);
  return [
    line(changed.length === 0 ? `${sshConfig} is up to date.` : `${sshConfig} now includes ${hostsFile}.`),
    line(hasWorkspaces ? 'Connect: ssh NAME.cde' : 'Once you have a workspace: ssh NAME.cde'),
    ...others.map(([url, { alias }]) => line(`On ${url}: ssh NAME.${alias}.cde`)),
  ];
}

/**
 * Pins the host keys of all workspaces that may be seen, on every server; each connection renews its own as well.
 * Resolves to the number of the user's own workspaces on the server that `NAME.cde` means.
 */
async function pinAll(context: Context): Promise<number> {
  const { servers } = readConfig(context.env);
  const others = Object.keys(servers).filter((url) => url !== serverOf(context)?.url);
  const [own] = await Promise.all([
    pinServer(context),
    // One that is down is no reason to complain: its keys come with the first connection.
    ...others.map((url) => pinServer(context.forServer(url), false)),
  ]);
  return own;
}

async function pinServer(context: Context, tell = true): Promise<number> {
  try {
    const client = await context.client();
    const all = await readAll((query) => client.call(listWorkspaces, { query }));
    const own = new Set(
      (await readAll((query) => client.call(listWorkspaces, { query: { ...query, owner: 'me' } }))).map(
        ({ id }) => id,
      ),
    );
    const { login, isDefaultForSsh } = context.server();
    const pins = new Map<string, string>();
    for (const { id, owner, name, agent } of all) {
      const key = agent.sshHostKey;
      if (key === null) continue;
      for (const reference of own.has(id) ? [`${owner}/${name}`, name] : [`${owner}/${name}`]) {
        if (isDefaultForSsh) pins.set(sshHost(reference), key);
        if (login) pins.set(sshHost(reference, login.alias), key);
      }
    }
    await pinHostKeys(context.env, pins);
    return own.size;
  } catch (error) {
    if (context.signal.aborted) throw error;
    if (tell)
      context.out.note(
        `The host keys could not be fetched now (${toFailure(error).message}) Each connection fetches its own.`,
      );
    return 0;
  }
}

/** The server that `NAME.cde` means; null while none is chosen. */
function serverOf(context: Context): ChosenServer | null {
  try {
    return context.server();
  } catch {
    return null;
  }
}

export function hostsContent(context: Context, path: string | undefined): string {
  const lines = hostOptions(context.env, '%n', keptSettings(context.env), stdioFlags({ path })).map(
    ([key, value]) => `  ${key} ${value}`,
  );
  const block = (host: string, comment: string) => [`# ${comment}`, `Host ${host}`, ...lines, ''];
  const aliases = Object.entries(readConfig(context.env).servers).map(([url, login]) =>
    block(`*.${login.alias}.cde`, `WORKSPACE.${login.alias}.cde: on ${url}`),
  );
  return [
    '# Written by `cde config-ssh`, which overwrites it. Settings of your own belong into your ssh',
    '# configuration, below its Include of this file: Host *.cde',
    ...aliases.flat(),
    ...block(anyCase('cde'), 'WORKSPACE.cde: on the current server. WORKSPACE.SERVER.cde: on that one.'),
  ].join('\n');
}

/** `*.cde *.cdE …`: ssh compares patterns with the host as it was typed, and host names have no case. */
function anyCase(suffix: string): string {
  const spellings = [...suffix].reduce<string[]>(
    (begun, letter) => begun.flatMap((text) => [text + letter, text + letter.toUpperCase()]),
    [''],
  );
  return spellings.map((spelling) => `*.${spelling}`).join(' ');
}

/** In a person's own ~/.ssh the short form, which stays right in a copy on another machine. */
function includePath(hostsFile: string): string {
  const own = join(userInfo().homedir, '.ssh');
  return hostsFile === join(own, 'cde', 'config') ? '~/.ssh/cde/config' : configWord(hostsFile);
}

/** The file behind symbolic links, which need not exist yet: a configuration kept among dotfiles stays there. */
function followLinks(path: string): string {
  for (let at = path, hops = 0; hops < 40; hops++) {
    if (!lstatSync(at, { throwIfNoEntry: false })?.isSymbolicLink())
      return existsSync(at) ? realpathSync(at) : at;
    at = resolve(dirname(at), readlinkSync(at));
  }
  throw new Failure('file-failed', `${path} is a symbolic link that leads to itself.`);
}

function readText(path: string): string | null {
  return existsSync(path) ? readFileSync(path, 'utf8') : null;
}

function writeHosts(hostsFile: string, content: string | null): void {
  const folder = dirname(hostsFile);
  if (content !== null) {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    writeAtomically(hostsFile, content, 0o600);
    return;
  }
  rmSync(hostsFile, { force: true });
  try {
    rmdirSync(folder);
  } catch {
    // A person keeps something of their own in it.
  }
}

function writeKeepingRights(path: string, content: string): void {
  const before = statSync(path, { throwIfNoEntry: false });
  if (!before) mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  writeAtomically(path, Buffer.from(content, 'latin1'), before ? before.mode & 0o7777 : 0o600);
  if (!before || process.getuid?.() !== 0) return;
  // Root, on behalf of another user: the file stays theirs.
  chownSync(path, before.uid, before.gid);
  chmodSync(path, before.mode & 0o7777);
}
