import { agentEnvironment, tokenOnStdin } from '@cde/api/agent.ts';
import type { DockerSection } from '@cde/api/template-file.ts';
import { gatewayServerUrl } from '@cde/tunnel/network/gateway.ts';
import type Dockerode from 'dockerode';
import { agentFolder } from '../agent-files.ts';
import type { EnterPlan } from '../prepare/enter-plan.ts';
import type { AgentLaunch, WorkspaceSpec } from '../provider.ts';
import { formatQuantity, parseQuantity } from '../quantity.ts';
import { containerName, labels } from './names.ts';

/** Where the folder of the server's sockets appears, if the engine is on the server's machine. */
const gatewayInside = '/run/cde';

/** What the first program needs as root, before it becomes the developer: to own the home, and to change users. */
const entryCapabilities = ['CHOWN', 'DAC_OVERRIDE', 'FOWNER', 'SETGID', 'SETUID'];

export const homeOf = (owner: string) => `/home/${owner}`;

export interface ContainerPlan {
  installation: string;
  spec: WorkspaceSpec;
  section: DockerSection;
  launch: AgentLaunch;
  home: string;
  agentVolume: string;
  /** The id of its network: a name can be ambiguous. */
  network: string;
  /** The image's own user, for `user: image`. */
  imageUser: string;
  /** On the engine's machine; null: agents use the server's URL only. */
  gatewayFolder: string | null;
  hasInit: boolean;
}

type UserPlan = Pick<ContainerPlan, 'section' | 'imageUser'>;

/** The user of the workspace: a uid, or a name of the image. */
const userOf = ({ section, imageUser }: UserPlan) =>
  section.user === 'image' ? imageUser || '0' : String(section.user);

/** Whether the developer can become root inside; then the container has Docker's usual capabilities. */
export const canBeRoot = (plan: UserPlan) =>
  plan.section.allowPrivilegeEscalation || /^(0|root)(:|$)/.test(userOf(plan));

/** The container of a workspace. Its token is not in here, because the engine stores all this. */
export function workspaceContainer(plan: ContainerPlan): Dockerode.ContainerCreateOptions & { name: string } {
  const { spec, section, launch, gatewayFolder } = plan;
  const home = homeOf(spec.owner);
  const enter: EnterPlan = { owner: spec.owner, user: userOf(plan), home };
  const memory = section.memory === undefined ? undefined : parseQuantity(section.memory)!;
  const serverUrl = gatewayFolder ? `${launch.serverUrl},${gatewayServerUrl}` : launch.serverUrl;
  const asRoot = canBeRoot(plan);
  return {
    name: containerName(spec.workspaceId),
    Image: section.image,
    Hostname: spec.name,
    User: '0:0',
    WorkingDir: home,
    Entrypoint: [`${agentFolder}/node`, `${agentFolder}/enter.mjs`],
    Cmd: [],
    Healthcheck: { Test: ['NONE'] },
    Env: [
      `HOME=${home}`,
      `CDE_ENTER=${JSON.stringify(enter)}`,
      `${agentEnvironment.serverUrl}=${serverUrl}`,
      `${agentEnvironment.token}=${tokenOnStdin}`,
      ...(gatewayFolder ? [`${agentEnvironment.gateway}=${gatewayInside}`] : []),
    ],
    Labels: {
      [labels.installation]: plan.installation,
      [labels.role]: 'container',
      [labels.workspace]: spec.workspaceId,
      [labels.build]: launch.buildId,
      [labels.owner]: spec.owner,
      [labels.name]: spec.name,
    },
    HostConfig: {
      ...(plan.hasInit && { Init: true }),
      NetworkMode: plan.network,
      Mounts: [
        { Type: 'volume', Source: plan.home, Target: home, VolumeOptions: { NoCopy: true } as never },
        { Type: 'volume', Source: plan.agentVolume, Target: agentFolder, ReadOnly: true },
        ...(gatewayFolder
          ? [{ Type: 'bind' as const, Source: gatewayFolder, Target: gatewayInside, ReadOnly: true }]
          : []),
      ],
      ...(!asRoot && {
        CapDrop: ['ALL'],
        CapAdd: entryCapabilities,
        SecurityOpt: ['no-new-privileges'],
      }),
      // Without swap, as on Kubernetes.
      ...(memory !== undefined && { Memory: memory, MemorySwap: memory }),
      ...(section.cpus !== undefined && { NanoCpus: Math.round(Number(coresOf(section.cpus)) * 1e9) }),
      PidsLimit: section.processes === undefined ? 8192 : Number(section.processes),
      // The server decides whether a workspace that ended starts again.
      RestartPolicy: { Name: 'no' },
      LogConfig: { Type: 'json-file', Config: { 'max-size': '4m', 'max-file': '1' } },
    },
  };
}

/** `2`, `0.5` or `500m`. */
export const coresOf = (cpus: string | number): number =>
  String(cpus).endsWith('m') ? Number(String(cpus).slice(0, -1)) / 1000 : Number(cpus);

/** What separates the workspace from its machine, and which limits hold. */
export function describeIsolation(plan: UserPlan, version: string): string {
  const { section } = plan;
  const limits = [
    ...(section.memory === undefined
      ? []
      : [`memory ${formatQuantity(Number(parseQuantity(section.memory)))}`]),
    ...(section.cpus === undefined ? [] : [`${section.cpus} CPUs`]),
    `processes ${section.processes ?? 8192}`,
  ];
  const rights = canBeRoot(plan)
    ? 'its programs can become root inside'
    : 'without capabilities and with no-new-privileges';
  return `Container on ${version} with a network of its own; runs as user ${userOf(plan)}, ${rights}. Limits: ${limits.join(', ')}.`;
}
