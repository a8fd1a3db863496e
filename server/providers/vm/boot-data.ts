import type { AgentLaunch, WorkspaceSpec } from '../provider.ts';
import { formatQuantity, parseQuantity } from '../quantity.ts';
import { bootSecret } from './boot-secret.ts';
import type { CloudSection, Machine, Volume } from './cloud.ts';
import { kernelPlan } from './kernel.ts';
import { digest } from './labels.ts';
import { agentUnit } from './unit.ts';
import type { BootPlan } from './user-data.ts';

const gibibyte = 2 ** 30;

export const homeDirectory = (owner: string) => `/home/${owner}`;

export const canBeRoot = ({ user, allowPrivilegeEscalation }: CloudSection) =>
  allowPrivilegeEscalation || Number(user) === 0;

const maxProcesses = ({ processes }: CloudSection) => (processes === undefined ? 8192 : Number(processes));

/** Whole GiB, which the sizes of volumes are in. */
export const gibibytes = (quantity: string | number): number =>
  Math.max(1, Math.ceil(parseQuantity(quantity)! / gibibyte));
export const sizeOf = (volume: Volume): string => formatQuantity(volume.gibibytes * gibibyte);

/** What a kept machine was made from: with another text it is replaced. */
export const planOf = (section: CloudSection): string => {
  const { onStop: _, snapshots: _s, env: _e, processes: _p, user: _u, kernel: _k, ...plan } = section;
  return digest(JSON.stringify(plan)).slice(0, 16);
};

/** What the machine does on its next boot. It contains no token. */
export function bootPlanOf(plan: {
  spec: WorkspaceSpec;
  section: CloudSection;
  launch: AgentLaunch;
  home: Volume;
  disk: BootPlan['disk'];
  metadata: boolean;
  certificateAuthorities: string | null;
  graceSeconds: number;
}): BootPlan {
  const { spec, section, launch, home, certificateAuthorities } = plan;
  const directory = homeDirectory(spec.owner);
  return {
    build: launch.buildId,
    secret: bootSecret(launch.token),
    serverUrl: launch.serverUrl,
    certificateAuthorities,
    metadata: plan.metadata,
    disk: plan.disk,
    home: directory,
    mayFormat: !home.labels.used,
    unit: agentUnit({
      enter: {
        owner: spec.owner,
        user: String(section.user),
        home: directory,
        hostname: spec.name,
        hasSudo: section.allowPrivilegeEscalation,
      },
      serverUrl: launch.serverUrl,
      hasGateway: false,
      canBeRoot: canBeRoot(section),
      processes: maxProcesses(section),
      graceSeconds: plan.graceSeconds,
      certificateAuthorities: certificateAuthorities ?? undefined,
      reportsToConsole: true,
    }),
    ...(section.kernel && { kernel: kernelPlan(section.kernel) }),
  };
}

/** `where` and `network`: the machine, and who can connect to it, in words. */
export function isolationText(
  section: CloudSection,
  { where, network, details }: { where: string; network: string; details: readonly string[] },
): string {
  const rights = canBeRoot(section)
    ? 'its programs can become root inside'
    : `runs as user ${section.user}, without capabilities and with no-new-privileges`;
  return `Virtual machine on ${where} (${details.join(', ')}), ${network}; ${rights}. Limits: processes ${maxProcesses(section)}.`;
}

export const describeMachine = ({ type, zone }: Pick<Machine, 'type' | 'zone'>) => `${type} in ${zone}`;
