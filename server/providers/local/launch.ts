import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { agentEnvironment, tokenOnStdin } from '@cde/api/agent.ts';
import { gatewayServerUrl } from '@cde/tunnel/network/gateway.ts';
import { ProviderFailure } from '../failure.ts';
import { gatewayFolder } from '../gateway/gateway.ts';
import type { AgentLaunch, WorkspaceSpec } from '../provider.ts';
import { isReadableByOthers, pathsOfCommand, planEnclosure } from './enclosure.ts';
import { enclose, type Isolation, shellOf, workspacePath } from './isolation.ts';
import type { Limits } from './limits.ts';
import { planNetwork } from './network.ts';
import type { Runs } from './runs.ts';

export interface AgentProgram {
  /** argv; absolute paths. */
  command: string[];
  /** Paths that the command needs besides the system, visible inside at the same paths. */
  readOnlyPaths: string[];
}

export interface Prepared {
  command: string[];
  env: Record<string, string>;
  /** The home's path inside the workspace. */
  home: string;
}

interface Preparation {
  spec: WorkspaceSpec;
  launch: AgentLaunch;
  agent: AgentProgram;
  isolation: Isolation;
  limits: Limits;
  /** The host uid of the workspace; null for the server's own. */
  uid: number | null;
  homePath: string;
  dataDir: string;
  runs: Runs;
}

/** Where the folder of the server's sockets appears inside. */
const gatewayInside = '/run/cde';

/** Where the home appears inside: the same path in all workspaces, except without isolation. */
export const homeInside = (isolation: Isolation, owner: string, homePath: string) =>
  isolation.level === 'none' ? homePath : `/home/${owner}`;

/**
 * Sets the template's variables only inside: a template's PATH or LD_PRELOAD must not reach the steps that still run
 * with the server's privileges.
 */
const setVariables =
  // biome-ignore lint/suspicious/noTemplateCurlyInString: for sh
  'i=0; while eval "v=\\${CDE_SET_$i-}"; [ "$v" ]; do export "$v"; unset "CDE_SET_$i"; i=$((i + 1)); done; unset i v; exec "$@"';

function templateVariables(spec: WorkspaceSpec): [string, string][] {
  return Object.entries(spec.template.local.env ?? {}).map(([name, value]) => {
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) {
      throw new ProviderFailure({
        code: 'template-env-invalid',
        message: `local.env of the template names ${JSON.stringify(name)}, which no variable can be called.`,
        hint: 'Use letters, digits and underscores, starting with a letter.',
        fault: 'user',
      });
    }
    return [name, String(value)];
  });
}

/** Writes the files of a launch into the run directory and composes its command and environment. */
export async function prepareLaunch(preparation: Preparation): Promise<Prepared> {
  const { spec, launch, agent, isolation, limits, uid, homePath, dataDir, runs } = preparation;
  const { workspaceId, owner } = spec;
  if (!/^[a-z_][a-z0-9_-]{0,31}$/.test(owner)) throw new Error(`${JSON.stringify(owner)} is no user name`);
  const home = homeInside(isolation, owner, homePath);
  const write = (name: string, text: string, mode?: number) => runs.write(workspaceId, name, text, mode);

  const groups = limits.settings.map((it) =>
    [it.optional ? 'optional' : 'needed', it.group, it.file, it.value].join('\t'),
  );
  await write('groups', groups.map((line) => `${line}\n`).join(''));
  await write('memory', limits.memory ?? '');
  await write('nproc', limits.maxUserProcesses === null ? '' : `${limits.maxUserProcesses}\n`);

  const variables = templateVariables(spec);
  const env: Record<string, string> = {
    HOME: home,
    USER: owner,
    LOGNAME: owner,
    SHELL: shellOf(),
    PATH: isolation.level === 'none' ? (process.env.PATH ?? workspacePath) : workspacePath,
    LANG: process.env.LANG || 'C.UTF-8',
    ...(process.env.TZ ? { TZ: process.env.TZ } : {}),
    [agentEnvironment.serverUrl]: launch.serverUrl,
    [agentEnvironment.token]: tokenOnStdin,
  };
  for (const [index, [name, value]] of variables.entries()) env[`CDE_SET_${index}`] = `${name}=${value}`;
  const network = await planNetwork(
    isolation.network,
    networkHint(dataDir, uid, workspaceId),
    isolation.level !== 'none',
  );
  const ownNetwork = network.prefix.length > 0;
  if (ownNetwork) {
    env[agentEnvironment.gateway] = gatewayInside;
    env[agentEnvironment.serverUrl] = `${launch.serverUrl},${gatewayServerUrl}`;
    if (network.directForward) env[agentEnvironment.directForward] = network.directForward;
  } else env[agentEnvironment.sharedNetwork] = 'yes';
  const memory = limits.settings.find(({ file }) => /^memory\.(max|limit_in_bytes)$/.test(file));
  if (memory) env[agentEnvironment.memoryLimit] = memory.value;
  const inner =
    variables.length === 0 ? agent.command : ['/bin/sh', '-c', setVariables, 'sh', ...agent.command];

  if (isolation.level === 'none') {
    // Identifies its process tree after the agent has exited.
    const [name, value] = runs.marker(workspaceId).split('=') as [string, string];
    env[name] = value;
    return { command: await enclose('none', { tools: isolation.tools } as never, '', inner), env, home };
  }

  const readOnlyPaths = [...new Set([...agent.readOnlyPaths, ...pathsOfCommand(agent.command)])];
  for (const path of uid === null ? [] : readOnlyPaths) {
    if (isReadableByOthers(path)) continue;
    throw new ProviderFailure({
      code: 'agent-not-readable',
      message: `The agent's files at ${path} can be read by the server's user only, not by the workspace's.`,
      hint: `Run \`chmod -R o+rX ${path}\`.`,
      fault: 'system',
    });
  }
  const inside = isolation.userNamespace ? 1000 : uid!;
  const users = [
    `root:x:0:0:root:/root:/bin/sh`,
    `nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin`,
  ];
  const named = `${owner}:x:${inside}:${inside}:${owner}:${home}:${shellOf()}`;
  const etc = {
    passwd: await write('passwd', `${[...users, named].join('\n')}\n`, 0o644),
    group: await write('group', `root:x:0:\ntty:x:5:\nnogroup:x:65534:\n${owner}:x:${inside}:\n`, 0o644),
    hosts: await write('hosts', `${hostsOfMachine().trimEnd()}\n127.0.1.1 ${spec.name}\n`, 0o644),
    hostname: await write('hostname', `${spec.name}\n`, 0o644),
    ...(network.resolv !== null && { 'resolv.conf': await write('resolv.conf', network.resolv, 0o644) }),
  };
  if (network.resolvTemplate !== null) await write('resolv.template', network.resolvTemplate);
  const gateway = ownNetwork ? { from: gatewayFolder(dataDir), to: gatewayInside } : undefined;
  if (gateway) await mkdir(gateway.from, { recursive: true, mode: 0o755 });
  const mounts = planEnclosure({ home: { from: homePath, to: home }, etc, readOnlyPaths, gateway, dataDir });
  const enclosed = {
    mounts,
    home,
    hostname: spec.name,
    hostUid: uid,
    userNamespace: isolation.userNamespace,
    seccompFilter: isolation.seccompFilter,
    tools: isolation.tools,
  };
  const command = await enclose(isolation.level, enclosed, join(runs.folder(workspaceId)), inner);
  return { command: [...network.prefix, ...command], env, home };
}

/** Differs between the workspaces of a server, and mostly between servers. */
function networkHint(dataDir: string, uid: number | null, workspaceId: string): number {
  const base = createHash('sha256').update(dataDir).digest().readUInt16LE();
  return base + (uid ?? createHash('sha256').update(workspaceId).digest().readUInt16LE());
}

function hostsOfMachine(): string {
  try {
    return readFileSync('/etc/hosts', 'utf8');
  } catch {
    return '127.0.0.1 localhost';
  }
}
