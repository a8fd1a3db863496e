import { accessSync, constants, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { LocalSection } from '@cde/api/template-file.ts';
import type { z } from 'zod';
import { ProviderFailure } from '../failure.ts';
import { formatQuantity, parseQuantity } from '../quantity.ts';

type Wanted = z.infer<typeof LocalSection>;
type Controller = 'memory' | 'cpu' | 'pids';
const controllerNames: Controller[] = ['memory', 'cpu', 'pids'];
const nameOf = { memory: 'memory', cpu: 'cpus', pids: 'processes' } as const;

/** A write to a cgroup file, done by supervisor.sh. */
export interface Setting {
  group: string;
  file: string;
  value: string;
  optional: boolean;
}

export interface Limits {
  settings: Setting[];
  /** The enforced limits for people: "memory 2Gi". Empty if there are none or none can be enforced. */
  holding: string[];
  /** Limits of the template that this machine cannot enforce, with the reason. */
  missing: string[];
  /** The memory limit as written in the template, for the exit reason. */
  memory: string | null;
  /** RLIMIT_NPROC of the workspace's host user, if no cgroup counts processes. */
  maxUserProcesses: number | null;
}

interface ControllerMount {
  version: 1 | 2;
  base: string;
}

const settingFiles = {
  1: { memory: 'memory.limit_in_bytes', cpu: 'cpu.cfs_quota_us', pids: 'pids.max' },
  2: { memory: 'memory.max', cpu: 'cpu.max', pids: 'pids.max' },
} as const;

/** Where we can create cgroups, by controller. `mountInfo` and `own` are from /proc/self. */
export function findControllers(
  name: string,
  mountInfo = readFileSync('/proc/self/mountinfo', 'utf8'),
  own = readFileSync('/proc/self/cgroup', 'utf8'),
): Partial<Record<Controller, ControllerMount>> {
  const controllers: Partial<Record<Controller, ControllerMount>> = {};
  const mounts = mountInfo.split('\n').flatMap((line) => {
    const [left, right] = line.split(' - ').map((part) => part.split(' '));
    return right && /^cgroup2?$/.test(right[0]!)
      ? [{ point: left![4]!, root: left![3]!, type: right[0]!, options: right[2]!.split(',') }]
      : [];
  });
  const ownPath = (controller: string) => {
    const line = own.split('\n').find((text) => text.split(':')[1]?.split(',').includes(controller));
    return line?.split(':').slice(2).join(':') ?? '/';
  };
  for (const controller of controllerNames) {
    const mount =
      mounts.find(({ type, options }) => type === 'cgroup' && options.includes(controller)) ??
      mounts.find(({ type }) => type === 'cgroup2');
    if (!mount) continue;
    const version = mount.type === 'cgroup' ? 1 : 2;
    const path = ownPath(version === 1 ? controller : '');
    const mine = join(mount.point, path.startsWith(mount.root) ? path.slice(mount.root.length) : path);
    // Prefer the top, where workspaces are not affected by the end of the server or its service.
    for (const parent of new Set([mount.point, mine])) {
      const base = join(parent, name);
      if (canHold({ version, base }, parent, controller)) {
        controllers[controller] = { version, base };
        break;
      }
    }
  }
  return controllers;
}

/** Tries to create a cgroup, and removes it. */
function canHold({ version, base }: ControllerMount, parent: string, controller: Controller): boolean {
  const trial = join(base, `trial-${process.pid}`);
  try {
    accessSync(parent, constants.W_OK);
    if (version === 2) enable(parent, controller);
    mkdirSync(trial, { recursive: true });
    if (version === 2) enable(base, controller);
    accessSync(join(trial, 'cgroup.procs'), constants.W_OK);
    accessSync(join(trial, settingFiles[version][controller]), constants.W_OK);
    return true;
  } catch {
    return false;
  } finally {
    for (const folder of version === 1 ? [trial, base] : [trial]) {
      try {
        rmdirSync(folder);
      } catch {
        // It was not created, or a workspace uses it.
      }
    }
  }
}

/** In cgroup v2 the parent must enable a controller for its children. */
function enable(folder: string, controller: Controller): void {
  const file = join(folder, 'cgroup.subtree_control');
  if (!readFileSync(file, 'utf8').trim().split(' ').includes(controller))
    writeFileSync(file, `+${controller}`);
}

function numberOf(field: 'cpus' | 'processes', given: string | number, least: number): number {
  const value = Number(given);
  if (Number.isFinite(value) && value >= least) return value;
  throw new ProviderFailure({
    code: 'template-limit-invalid',
    message: `The template's limit local.${field} is ${JSON.stringify(given)}, which is no number of at least ${least}.`,
    hint: `Write a number, for example \`${field}: ${field === 'cpus' ? '2' : '500'}\`.`,
    fault: 'user',
  });
}

/** Default limit for processes and threads: several times what a browser, an IDE and a build use together. */
const defaultProcesses = 8192;

/**
 * The limits of one workspace. `hasOwnUser`: it runs as a host user that no other workspace has. Throws a Fault if the
 * template's values are not quantities.
 */
export function planLimits(
  workspaceId: string,
  wanted: Wanted,
  {
    controllers,
    hasOwnUser,
  }: { controllers: Partial<Record<Controller, ControllerMount>>; hasOwnUser: boolean },
): Limits {
  const limits: Limits = { settings: [], holding: [], missing: [], memory: null, maxUserProcesses: null };
  const add = (
    controller: Controller,
    shown: string,
    values: (version: 1 | 2) => [string, string, boolean?][],
  ) => {
    const mount = controllers[controller];
    if (!mount) {
      limits.missing.push(`${nameOf[controller]} ${shown} (no writable cgroup for ${controller})`);
      return;
    }
    const group = join(mount.base, workspaceId);
    if (mount.version === 2) {
      mkdirSync(mount.base, { recursive: true });
      enable(mount.base, controller);
    }
    for (const [file, value, optional = false] of values(mount.version))
      limits.settings.push({ group, file, value, optional });
    limits.holding.push(`${nameOf[controller]} ${shown}`);
  };
  if (wanted.memory !== undefined) {
    const bytes = parseQuantity(wanted.memory);
    if (bytes === null || bytes < 2 ** 24) {
      throw new ProviderFailure({
        code: 'template-limit-invalid',
        message: `The template's limit local.memory is ${JSON.stringify(wanted.memory)}, which is no quantity of at least 16Mi.`,
        hint: 'Write a quantity, for example `memory: 2Gi`.',
        fault: 'user',
      });
    }
    limits.memory = formatQuantity(bytes);
    // Swap would only delay the same outcome. Without swap accounting the file does not exist.
    add('memory', limits.memory, (version) =>
      version === 1
        ? [
            ['memory.limit_in_bytes', String(bytes)],
            ['memory.memsw.limit_in_bytes', String(bytes), true],
          ]
        : [
            ['memory.max', String(bytes)],
            ['memory.swap.max', '0', true],
          ],
    );
  }
  if (wanted.cpus !== undefined) {
    const cpus = numberOf('cpus', wanted.cpus, 0.01);
    const quota = Math.round(cpus * 100_000);
    add('cpu', String(cpus), (version) =>
      version === 1
        ? [
            ['cpu.cfs_period_us', '100000'],
            ['cpu.cfs_quota_us', String(quota)],
          ]
        : [['cpu.max', `${quota} 100000`]],
    );
  }
  const isDefault = wanted.processes === undefined;
  const processes = isDefault ? defaultProcesses : Math.floor(numberOf('processes', wanted.processes!, 16));
  const shown = isDefault ? `${processes} (default)` : String(processes);
  if (controllers.pids) add('pids', shown, () => [['pids.max', String(processes)]]);
  else if (hasOwnUser) {
    // The kernel counts RLIMIT_NPROC per user, so a user shared with the server would share the limit.
    limits.maxUserProcesses = processes;
    limits.holding.push(`processes ${shown}`);
  } else limits.missing.push(`processes${isDefault ? '' : ` ${processes}`} (no writable cgroup for pids)`);
  return limits;
}
