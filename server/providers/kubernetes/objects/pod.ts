import { agentEnvironment } from '@cde/api/agent.ts';
import type { KubernetesSection } from '@cde/api/template-file.ts';
import type { AgentLaunch, WorkspaceSpec } from '../../provider.ts';
import type { Container, PodSpec, SecurityContext } from '../api/models.ts';
import { annotations, kernelProfileLabel } from '../api/names.ts';
import type { Plan } from '../prepare/plan.ts';

/** The agent's folder in every workspace. The Node binary in the agent's image is linked for this path. */
const agentFolder = '/opt/cde';
const etcVolume = '/cde-etc';
const volume = '/cde-volume';

/** The fsGroup of volumes when the image decides the user: all processes of the pod are in this group. */
export const sharedGroup = 1000;

export const homeOf = (owner: string): string => `/home/${owner}`;

const quantity = (value: string | number | undefined): string | undefined =>
  value === undefined ? undefined : String(value);

/** Limits and requests as documented in api/templates.ts: by default half of the cores and all of the memory. */
export function resourcesOf(wanted: {
  cpus?: string | number | undefined;
  memory?: string | number | undefined;
  requests?: { cpus?: string | number | undefined; memory?: string | number | undefined } | undefined;
}) {
  const millis = wanted.cpus === undefined ? undefined : milliCores(wanted.cpus);
  const halfCpus = millis === undefined ? undefined : `${Math.max(1, Math.round(millis / 2))}m`;
  const present = (values: Record<string, string | undefined>): Record<string, string> =>
    Object.fromEntries(
      Object.entries(values).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
    );
  return {
    limits: present({ cpu: quantity(wanted.cpus), memory: quantity(wanted.memory) }),
    requests: present({
      cpu: quantity(wanted.requests?.cpus) ?? halfCpus,
      memory: quantity(wanted.requests?.memory ?? wanted.memory),
    }),
  };
}

/** Parses `2`, `0.5` or `500m`. */
const milliCores = (cpus: string | number): number =>
  String(cpus).endsWith('m') ? Number(String(cpus).slice(0, -1)) : Number(cpus) * 1000;

/** The container runtime's profile, as Kubernetes' default is none. Privileged templates choose their own. */
export const seccomp = ({ podSecurity }: KubernetesSection) =>
  podSecurity === 'privileged' ? {} : { seccompProfile: { type: 'RuntimeDefault' } };

/** Setuid programs cannot gain root, unless a template allows it. */
export const noPrivilegeEscalation = ({ podSecurity }: KubernetesSection) =>
  podSecurity === 'privileged' ? {} : { allowPrivilegeEscalation: false };

/** On which nodes the pods of a template run, and with which credentials their images are pulled. */
export const placement = (section: KubernetesSection, kernelProfile?: string) => ({
  ...(section.pullSecrets.length > 0 && {
    imagePullSecrets: section.pullSecrets.map((secret) => ({ name: secret.split('/')[1] })),
  }),
  nodeSelector: {
    ...section.nodeSelector,
    ...(kernelProfile && { [kernelProfileLabel(kernelProfile)]: 'ready' }),
  },
  ...(section.tolerations.length > 0 && {
    tolerations: section.tolerations.map(({ tolerationSeconds, ...toleration }) => ({
      ...toleration,
      ...(tolerationSeconds !== undefined && { tolerationSeconds: Number(tolerationSeconds) }),
    })),
  }),
});

interface PodOptions {
  agentImage: string;
  agentPullPolicy?: string;
  agentCa?: string;
  supportsHostnameOverride?: boolean;
}

/** What the containers of one workspace have in common. */
interface Common {
  section: KubernetesSection;
  options: PodOptions;
  home: string;
  restricted: boolean;
  /** The developer's; null: the image's. */
  uid: number | null;
  /** Whether `prepare` runs as root, which can chown a new volume of any storage to the developer, and copy all of /etc. */
  asRoot: boolean;
  strict: SecurityContext;
  asUser: SecurityContext;
  pull: Partial<Pick<Container, 'imagePullPolicy'>>;
  /** Folders in memory over a read-only root. */
  scratch: readonly string[];
}

/** The pod of a workspace: one init container copies the agent in, one prepares the home, then the agent starts. */
export function workspacePod(
  spec: WorkspaceSpec,
  section: KubernetesSection,
  launch: AgentLaunch,
  options: PodOptions,
): { metadata: { labels: Record<string, string>; annotations: Record<string, string> }; spec: PodSpec } {
  const restricted = section.podSecurity === 'restricted';
  const uid = section.user === 'image' ? null : Number(section.user);
  const asRoot = !restricted && uid !== null;
  const common: Common = {
    section,
    options,
    home: homeOf(spec.owner),
    restricted,
    uid,
    asRoot,
    strict: restricted
      ? { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] }, runAsNonRoot: true }
      : noPrivilegeEscalation(section),
    asUser: uid === null ? {} : { runAsUser: uid, runAsGroup: uid },
    pull: section.pullPolicy ? { imagePullPolicy: section.pullPolicy } : {},
    scratch: section.readOnlyRoot ? ['tmp', 'run', 'var-tmp'] : [],
  };
  return {
    metadata: {
      labels: { app: 'workspace' },
      annotations: {
        [annotations.build]: launch.buildId,
        // Autoscalers must not move a workspace to a cheaper node while it is in use.
        'cluster-autoscaler.kubernetes.io/safe-to-evict': 'false',
        'karpenter.sh/do-not-disrupt': 'true',
      },
    },
    spec: {
      // A StatefulSet overwrites `hostname` with the name of the pod.
      ...(options.supportsHostnameOverride && { hostnameOverride: spec.name }),
      serviceAccountName: 'developer',
      enableServiceLinks: false,
      // The pause process reaps orphans of daemons; the agent does not.
      shareProcessNamespace: true,
      // The agent closes its sessions within 3 s.
      terminationGracePeriodSeconds: 10,
      securityContext: {
        // Only if no container runs as root. Otherwise it would make every file of a restored home
        // group-accessible, and ssh would then reject its keys.
        ...(!asRoot && { fsGroup: uid ?? sharedGroup, fsGroupChangePolicy: 'OnRootMismatch' }),
        ...seccomp(section),
      },
      ...placement(section, section.kernelProfile),
      initContainers: initContainers(spec.owner, common),
      containers: [workspaceContainer(launch, common)],
      volumes: [
        { name: 'cde', emptyDir: {} },
        { name: 'etc', emptyDir: {} },
        ...common.scratch.map((name) => ({ name, emptyDir: {} })),
        { name: 'home', persistentVolumeClaim: { claimName: 'home' } },
      ],
    },
  };
}

const agentVolumeMount = { name: 'cde', mountPath: agentFolder };

function initContainers(owner: string, common: Common): Container[] {
  const { section, options, home, restricted, uid, asRoot, strict, asUser, pull } = common;
  const plan: Plan = { owner, uid, volume, home, etc: `${etcVolume}/etc`, wholeEtc: asRoot };
  // A quota counts the largest init container: it must not have more cores than the workspace.
  const millis = Math.min(1000, section.cpus === undefined ? 1000 : milliCores(section.cpus));
  const resources = {
    requests: { cpu: `${Math.min(10, millis)}m`, memory: '64Mi' },
    limits: { cpu: `${millis}m`, memory: '256Mi' },
  };
  return [
    {
      name: 'agent',
      image: options.agentImage,
      ...(options.agentPullPolicy && { imagePullPolicy: options.agentPullPolicy }),
      command: [`${agentFolder}/node`, `${agentFolder}/install.mjs`, '/target'],
      resources,
      securityContext: { ...strict, ...(restricted && { runAsUser: uid ?? 65534 }) },
      volumeMounts: [{ name: 'cde', mountPath: '/target' }],
    },
    {
      name: 'prepare',
      image: section.image,
      ...pull,
      command: [`${agentFolder}/node`, `${agentFolder}/prepare.mjs`],
      env: [{ name: 'CDE_PREPARE', value: JSON.stringify(plan) }],
      resources,
      terminationMessagePolicy: 'FallbackToLogsOnError',
      securityContext: asRoot ? { ...strict, runAsUser: 0, runAsGroup: 0 } : { ...strict, ...asUser },
      volumeMounts: [
        agentVolumeMount,
        { name: 'home', mountPath: volume },
        { name: 'etc', mountPath: etcVolume },
      ],
    },
  ];
}

function workspaceContainer(launch: AgentLaunch, common: Common): Container {
  const { section, options, home, restricted, asRoot, strict, asUser, pull, scratch } = common;
  const etc = { name: 'etc' };
  return {
    name: 'workspace',
    image: section.image,
    ...pull,
    command: [`${agentFolder}/node`, `${agentFolder}/agent.mjs`],
    workingDir: home,
    env: [
      { name: 'HOME', value: home },
      { name: agentEnvironment.serverUrl, value: launch.serverUrl },
      {
        name: agentEnvironment.token,
        valueFrom: { secretKeyRef: { name: 'cde-agent', key: 'token' } },
      },
      ...(options.agentCa ? [{ name: agentEnvironment.certificateAuthorities, value: options.agentCa }] : []),
    ],
    resources: resourcesOf(section),
    securityContext: {
      ...strict,
      ...(section.allowPrivilegeEscalation && !restricted && { allowPrivilegeEscalation: true }),
      ...asUser,
      ...(section.readOnlyRoot && { readOnlyRootFilesystem: true }),
    },
    volumeMounts: [
      { ...agentVolumeMount, readOnly: true },
      { name: 'home', mountPath: home, subPath: 'home' },
      ...(asRoot
        ? [{ ...etc, mountPath: '/etc', subPath: 'etc', ...(section.readOnlyRoot && { readOnly: true }) }]
        : ['passwd', 'group'].map((name) => ({ ...etc, mountPath: `/etc/${name}`, subPath: `etc/${name}` }))),
      ...scratch.map((name) => ({ name, mountPath: `/${name.replace('-', '/')}` })),
    ],
  };
}
