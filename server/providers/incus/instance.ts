import type { IncusSection } from '@cde/api/template-file.ts';
import { agentFolder } from '../agent-files.ts';
import type { AgentLaunch, WorkspaceSpec } from '../provider.ts';
import { formatQuantity, parseQuantity } from '../quantity.ts';
import { gatewayInside } from '../vm/unit.ts';
import { imageSource } from './image.ts';
import { instanceName, keys } from './names.ts';
import type { HomePlace } from './state.ts';
import type { Devices, Surroundings } from './surroundings.ts';

export type Kind = 'container' | 'virtual-machine';

/** An instance, as the API shows it. */
export interface Instance {
  name: string;
  project: string;
  status: string;
  location: string;
  created_at: string;
  last_used_at: string;
  type: Kind;
  config: Record<string, string>;
}

export interface InstancePlan {
  installation: string;
  spec: WorkspaceSpec;
  section: IncusSection;
  launch: AgentLaunch;
  kind: Kind;
  home: HomePlace;
  agentVolume: string;
  surroundings: Surroundings;
  /** On the server's machine; null: agents use the server's URL only. */
  gatewayFolder: string | null;
  /** The process of Incus. */
  creator: string;
}

export const homeDirectory = (owner: string) => `/home/${owner}`;

export const canBeRoot = ({ user, allowPrivilegeEscalation }: IncusSection) =>
  allowPrivilegeEscalation || Number(user) === 0;

export const maxProcesses = ({ processes }: IncusSection) =>
  processes === undefined ? 8192 : Number(processes);

/** `2`, `0.5` or `500m`. */
const coresOf = (cpus: string | number): number =>
  String(cpus).endsWith('m') ? Number(String(cpus).slice(0, -1)) / 1000 : Number(cpus);

/** Once it has run, it is started no more: it has no token. */
export const hasRun = ({ last_used_at }: Instance) => Date.parse(last_used_at) > 0;
/** Names one run of an instance. */
export const runOf = ({ created_at, last_used_at }: Instance) => `${created_at} ${last_used_at}`;

function limits(section: IncusSection, kind: Kind): Record<string, string> {
  const { cpus, memory } = section;
  const cores = cpus === undefined ? undefined : coresOf(cpus);
  const bytes = memory === undefined ? undefined : parseQuantity(memory)!;
  return {
    ...(cores !== undefined && { 'limits.cpu': String(Math.max(1, Math.ceil(cores))) }),
    ...(bytes !== undefined && { 'limits.memory': String(bytes) }),
    ...(kind === 'container' && {
      // Of each 100 ms.
      ...(cores !== undefined &&
        !Number.isInteger(cores) && { 'limits.cpu.allowance': `${Math.round(cores * 100)}ms/100ms` }),
      'limits.memory.swap': 'false',
      'limits.processes': String(maxProcesses(section)),
    }),
  };
}

/** The instance of a workspace. Its token is not in here, because the server stores all this. */
export function workspaceInstance(plan: InstancePlan) {
  const { spec, section, launch, kind, home, surroundings, gatewayFolder } = plan;
  const { nic } = surroundings;
  const devices: Devices = {
    root: {
      type: 'disk',
      path: '/',
      pool: home.pool,
      ...(section.disk !== undefined && { size: String(parseQuantity(section.disk)!) }),
    },
    home: { type: 'disk', pool: home.pool, source: home.name, path: homeDirectory(spec.owner) },
    'cde-agent': {
      type: 'disk',
      pool: home.pool,
      source: plan.agentVolume,
      path: agentFolder,
      readonly: 'true',
    },
    ...(nic && { [nic.name]: nic.device }),
    ...(gatewayFolder !== null &&
      kind === 'container' && {
        'cde-gateway': { type: 'disk', source: gatewayFolder, path: gatewayInside, readonly: 'true' },
      }),
  };
  return {
    name: instanceName(spec.workspaceId),
    type: kind,
    source: imageSource(section),
    profiles: section.profiles,
    devices,
    config: {
      ...limits(section, kind),
      // The server decides when it starts again, with another token.
      'boot.autostart': 'false',
      // Nobody inside needs to read the keys below.
      'security.guestapi': 'false',
      ...(kind === 'container' && section.nesting && { 'security.nesting': 'true' }),
      [keys.installation]: plan.installation,
      [keys.role]: 'instance',
      [keys.workspace]: spec.workspaceId,
      [keys.build]: launch.buildId,
      [keys.owner]: spec.owner,
      [keys.name]: spec.name,
      [keys.creator]: plan.creator,
    },
  };
}

/** What separates the workspace from its machine, and which limits hold. */
export function describeIsolation(
  section: IncusSection,
  kind: Kind,
  { version, nic }: { version: string; nic: Surroundings['nic'] },
): string {
  const what = kind === 'container' ? 'System container' : 'Virtual machine';
  const rights = canBeRoot(section)
    ? 'its programs can become root inside'
    : `runs as user ${section.user}, without capabilities and with no-new-privileges`;
  const network = nic?.isIsolated ? 'does not reach other workspaces' : 'shares its network with others';
  const said = [
    ...(section.memory === undefined ? [] : [`memory ${formatQuantity(parseQuantity(section.memory)!)}`]),
    ...(section.cpus === undefined ? [] : [`${section.cpus} CPUs`]),
    ...(section.disk === undefined ? [] : [`root disk ${formatQuantity(parseQuantity(section.disk)!)}`]),
    `processes ${maxProcesses(section)}`,
  ];
  return `${what} on Incus ${version}, unprivileged, ${network}; ${rights}. Limits: ${said.join(', ')}.`;
}
