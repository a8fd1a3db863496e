import { hostname } from 'node:os';
import { listenAddress } from '@cde/api/addresses.ts';
import { z } from 'zod';
import { hugePagesFolder } from './sysctls.ts';

export class SettingsError extends Error {}

/** The cluster's API through `kubectl proxy`, if noded does not run in a pod. */
const api = z.url({ protocol: /^https?$/ }).optional();
const Settings = z.object({
  /** The node that this process maintains. */
  CDE_NODE_NAME: z.string('is missing: the name of this node').min(1),
  CDE_NODED_PROFILES: z.string().default('/etc/cde/noded/profiles.yaml'),
  /** Where the node's /proc/sys is mounted; the container's own is read-only. */
  CDE_NODED_SYSCTLS: z.string().default('/proc/sys'),
  /** Where the node's /sys/kernel/mm/transparent_hugepage is mounted. */
  CDE_NODED_HUGE_PAGES: z.string().default(hugePagesFolder),
  /** The node's folders with sysctl.d files, most important first: they are read to name what undoes a profile. */
  CDE_NODED_SYSCTL_FOLDERS: z
    .string()
    .default('/etc/sysctl.d:/run/sysctl.d:/usr/local/lib/sysctl.d:/usr/lib/sysctl.d')
    .transform((text) => text.split(':').filter((folder) => folder !== '')),
  CDE_NODED_DATA_DIR: z.string().default('/var/lib/cde/noded'),
  /** Of a machine that is in no cluster: what a node would report in its annotation. */
  CDE_NODED_REPORT: z.string().default('/run/cde/kernel.json'),
  CDE_NODED_API: api,
  CDE_NODED_LISTEN: listenAddress('0.0.0.0:7092', { isHostOptional: true }).prefault('0.0.0.0:7092'),
  CDE_LOG_LEVEL: z.enum(['trace', 'debug', 'info', 'warn', 'error']).default('info'),
});
const RestoreSettings = z.object({
  CDE_NODED_API: api,
  /** NAMESPACE/NAME of the ConfigMap with the profiles. */
  CDE_NODED_CONFIG_MAP: z
    .string('is missing: NAMESPACE/NAME of the ConfigMap with the profiles')
    .regex(/^[a-z0-9-]+\/[a-z0-9.-]+$/, 'write NAMESPACE/NAME'),
  CDE_NODED_RESTORE_SECONDS: z.coerce.number().int().min(1).max(3600).default(240),
});

function read<Shape extends z.ZodType>(schema: Shape, env: NodeJS.ProcessEnv): z.output<Shape> {
  const parsed = schema.safeParse(env);
  if (parsed.success) return parsed.data;
  throw new SettingsError(
    parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`).join('\n'),
  );
}

/** @throws SettingsError */
export const readSettings = (env: NodeJS.ProcessEnv) => read(Settings, env);
/** Labels of a node decide which profiles apply, so a dry run needs its name only if a profile has a nodeSelector. */
export const readDryRunSettings = (env: NodeJS.ProcessEnv) =>
  read(Settings.extend({ CDE_NODE_NAME: z.string().optional() }), env);
/** @throws SettingsError */
export const readMachineSettings = (env: NodeJS.ProcessEnv) =>
  read(Settings.extend({ CDE_NODE_NAME: z.string().default(hostname()) }), env);
/** @throws SettingsError */
export const readRestoreSettings = (env: NodeJS.ProcessEnv) => read(RestoreSettings, env);
