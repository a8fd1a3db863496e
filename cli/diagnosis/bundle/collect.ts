import { execFile } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { homedir, release } from 'node:os';
import { join } from 'node:path';
import type { Workspace } from '@cde/api/workspaces.ts';
import { shownSessions } from '../../background/client.ts';
import type { Context } from '../../command/context.ts';
import { ownVersion } from '../../completion/version.ts';
import { configDir, configFile, readConfig } from '../../config/config.ts';
import {
  getBuildLog,
  getUser,
  getWorkspace,
  getWorkspaceActivity,
  listBuilds,
  listPorts,
  listWorkspaces,
} from '../../connection/endpoints.ts';
import { measureOnce } from '../../netcheck/netcheck.ts';
import { pathRef } from '../../workspaces/reference.ts';
import { diagnose } from '../doctor/doctor.ts';
import { readText } from '../doctor/files.ts';
import { removed, secretName } from './redact.ts';

/** A file of the bundle: how its content is made, and what it is, for README.txt. */
export interface Source {
  path: string;
  about: string;
  read: () => unknown;
}

/** Bounds the archive: the end of a log tells why something failed. */
const maxLogLines = 1_000;
const maxItems = 100;

export function listSources(context: Context, workspace: string | undefined): Source[] {
  return [
    { path: 'versions.json', about: 'releases of cde, Node, ssh and the system', read: () => versions() },
    { path: 'doctor.json', about: 'cde doctor', read: () => diagnose(context, workspace) },
    {
      path: 'netcheck.json',
      about: 'cde netcheck; it contains addresses of this machine',
      read: async () =>
        (await measureOnce(context, { satellite: undefined, throughput: false }, () => {})).report,
    },
    {
      path: 'config.json',
      about: 'the configuration of cde without tokens',
      read: () => configuration(context),
    },
    {
      path: 'environment.txt',
      about: 'variables that change what cde does; of others only the names',
      read: () => environment(context.env),
    },
    { path: 'ssh.txt', about: 'what ssh makes of its configuration for NAME.cde', read: () => sshSettings() },
    { path: 'background.json', about: 'cde background show', read: () => shownSessions(context) },
    { path: 'user.json', about: 'cde whoami', read: () => user(context) },
    {
      path: 'workspaces.json',
      about: 'your workspaces, without the values of parameters',
      read: () => workspaces(context),
    },
    ...(workspace === undefined ? [] : workspaceSources(context, workspace)),
  ];
}

function workspaceSources(context: Context, reference: string): Source[] {
  const params = { workspace: pathRef(reference) };
  return [
    {
      path: 'workspace/workspace.json',
      about: `cde show ${reference}, without the values of parameters`,
      read: async () => withoutValues(await (await context.client()).call(getWorkspace, { params })),
    },
    {
      path: 'workspace/activity.json',
      about: `cde activity ${reference}`,
      read: async () => (await context.client()).call(getWorkspaceActivity, { params }),
    },
    {
      path: 'workspace/ports.json',
      about: `cde ports ${reference}`,
      read: async () => (await context.client()).call(listPorts, { params }),
    },
    {
      path: 'workspace/builds.json',
      about: `cde builds ${reference}`,
      read: async () => (await context.client()).call(listBuilds, { params, query: { limit: 20 } }),
    },
    {
      path: 'workspace/build.log',
      about: `the last ${maxLogLines} lines of the last build's log`,
      read: () => lastLog(context, params),
    },
  ];
}

async function versions() {
  const ssh = await run('ssh', ['-V']);
  return {
    cde: ownVersion(),
    node: process.versions.node,
    platform: `${process.platform}-${process.arch}`,
    system: release(),
    ssh: ssh.trim(),
    at: new Date().toISOString(),
  };
}

function configuration({ env }: Context) {
  const config = readConfig(env);
  const servers = Object.entries(config.servers).map(([url, { token: _, ...login }]) => ({ url, ...login }));
  const files = readdirSync(configDir(env), { withFileTypes: true }).map((entry) => {
    const { mode, size } = statSync(join(configDir(env), entry.name), { throwIfNoEntry: false }) ?? {};
    return { name: entry.name, size, mode: mode === undefined ? undefined : (mode & 0o777).toString(8) };
  });
  return { file: configFile(env), current: config.current, servers, files };
}

/** Variables whose values say how cde behaves. */
const shown = /^(CDE_|NODE_|HTTPS?_PROXY$|NO_PROXY$|ALL_PROXY$|XDG_|PATH$|TERM$|LANG$|LC_|SHELL$|NO_COLOR$)/i;

function environment(env: NodeJS.ProcessEnv): string {
  return Object.keys(env)
    .sort()
    .map((name) => {
      if (!shown.test(name)) return name;
      return `${name}=${secretName.test(name) ? removed : env[name]}`;
    })
    .join('\n');
}

async function sshSettings(): Promise<string> {
  const config = join(homedir(), '.ssh', 'config');
  const hosts = readText(join(homedir(), '.ssh', 'cde', 'config'));
  const settings = await run('ssh', [
    ...(readText(config) === null ? [] : ['-F', config]),
    '-G',
    'workspace.cde',
  ]);
  return `# ssh -G workspace.cde\n${settings}\n# ~/.ssh/cde/config\n${hosts ?? '(missing)'}\n`;
}

async function user(context: Context) {
  return (await context.client()).call(getUser, { params: { user: 'me' } });
}

async function workspaces(context: Context) {
  const client = await context.client();
  const { items } = await client.call(listWorkspaces, { query: { owner: 'me', limit: maxItems } });
  return items.map(withoutValues);
}

/** Parameters may be anything, secrets too. */
function withoutValues<T extends Pick<Workspace, 'parameters'>>(workspace: T): T {
  const parameters = Object.fromEntries(Object.keys(workspace.parameters).map((name) => [name, removed]));
  return { ...workspace, parameters };
}

async function lastLog(context: Context, params: { workspace: string }): Promise<string> {
  const client = await context.client();
  const { latestBuild } = await client.call(getWorkspace, { params });
  if (!latestBuild) return 'It has no build.';
  let lines: string[] = [];
  let after = 0;
  for (;;) {
    const reply = await client.call(getBuildLog, { params: { build: latestBuild.id }, query: { after } });
    lines.push(...reply.lines.map(({ at, source, level, text }) => `${at} ${source} ${level} ${text}`));
    lines = lines.slice(-maxLogLines);
    const last = reply.lines.at(-1);
    if (!last || reply.done || last.seq <= after) return lines.join('\n');
    after = last.seq;
  }
}

/** What a program prints; its error if it cannot run. */
function run(program: string, words: string[]): Promise<string> {
  return new Promise((resolve) => {
    execFile(program, words, { timeout: 10_000, maxBuffer: 1024 * 1024 }, (error, stdout, stderr) =>
      resolve(`${stdout}${stderr}` || (error?.message ?? '')),
    );
  });
}
