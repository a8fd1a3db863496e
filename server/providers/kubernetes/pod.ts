import { agentEnvironment } from '@cde/api/agent.ts';
import type { KubernetesSection } from '@cde/api/templates.ts';
import type { AgentLaunch, WorkspaceSpec } from '../provider.ts';
import { annotations } from './names.ts';

/** Where the agent lies in every workspace; Node's loader in the agent's image has this path. */
const place = '/opt/cde';
const etc = '/cde-etc';
const volume = '/cde-volume';

export const homeOf = (owner: string): string => `/home/${owner}`;

const quantity = (value: string | number | undefined): string | undefined =>
  value === undefined ? undefined : String(value);

/** Limits and requests, as api/templates.ts says: half of the cores and all of the memory are requested. */
export function resourcesOf(wanted: {
  cpus?: string | number | undefined;
  memory?: string | number | undefined;
  requests?: { cpus?: string | number | undefined; memory?: string | number | undefined } | undefined;
}) {
  const halfCpus =
    wanted.cpus === undefined ? undefined : `${Math.max(1, Math.round(Number(wanted.cpus) * 500))}m`;
  const present = (values: Record<string, string | undefined>) =>
    Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
  return {
    limits: present({ cpu: quantity(wanted.cpus), memory: quantity(wanted.memory) }),
    requests: present({
      cpu: quantity(wanted.requests?.cpus) ?? halfCpus,
      memory: quantity(wanted.requests?.memory ?? wanted.memory),
    }),
  };
}

/** The pod of a workspace: the agent copied in, the home made ready, then the agent in the template's image. */
export function workspacePod(
  spec: WorkspaceSpec,
  section: KubernetesSection,
  launch: AgentLaunch,
  options: { agentImage: string; agentPullPolicy?: string },
): { metadata: object; spec: object } {
  const home = homeOf(spec.owner);
  const restricted = section.podSecurity === 'restricted';
  const uid = section.user === 'image' ? null : Number(section.user);
  const asUser = uid === null ? {} : { runAsUser: uid, ...(uid > 0 && { runAsGroup: uid }) };
  const strict = restricted
    ? {
        allowPrivilegeEscalation: false,
        capabilities: { drop: ['ALL'] },
        runAsNonRoot: true,
      }
    : {};
  const cde = { name: 'cde', mountPath: place };
  const pull = section.pullPolicy && { imagePullPolicy: section.pullPolicy };
  const small = { requests: { cpu: '10m', memory: '64Mi' }, limits: { cpu: '1', memory: '256Mi' } };
  const scratch = section.readOnlyRoot ? ['tmp', 'run', 'var-tmp'] : [];
  return {
    metadata: {
      labels: { app: 'workspace' },
      annotations: { [annotations.build]: launch.buildId },
    },
    spec: {
      hostname: spec.name,
      serviceAccountName: 'developer',
      enableServiceLinks: false,
      // The agent hangs up its sessions within 3 s.
      terminationGracePeriodSeconds: 10,
      securityContext: {
        ...(uid !== null && uid > 0 && { fsGroup: uid, fsGroupChangePolicy: 'OnRootMismatch' }),
        ...(restricted && { seccompProfile: { type: 'RuntimeDefault' } }),
      },
      ...(section.pullSecrets.length > 0 && {
        imagePullSecrets: section.pullSecrets.map((secret) => ({ name: secret.split('/')[1] })),
      }),
      nodeSelector: {
        ...section.nodeSelector,
        ...(section.kernelProfile && { [`cde.dev/kernel-profile.${section.kernelProfile}`]: 'ready' }),
      },
      ...(section.tolerations.length > 0 && { tolerations: section.tolerations }),
      initContainers: [
        {
          name: 'agent',
          image: options.agentImage,
          ...(options.agentPullPolicy && { imagePullPolicy: options.agentPullPolicy }),
          command: [`${place}/node`, `${place}/install.mjs`, '/target'],
          resources: small,
          securityContext: { ...strict, ...(restricted && { runAsUser: uid ?? 65534 }) },
          volumeMounts: [{ name: 'cde', mountPath: '/target' }],
        },
        {
          name: 'prepare',
          image: section.image,
          ...pull,
          command: [`${place}/node`, `${place}/prepare.mjs`],
          env: [
            {
              name: 'CDE_PREPARE',
              value: JSON.stringify({ owner: spec.owner, uid, volume, home, etc }),
            },
          ],
          resources: small,
          terminationMessagePolicy: 'FallbackToLogsOnError',
          // Root can make a fresh volume the developer's, whichever way the storage handed it over.
          securityContext:
            restricted || uid === null ? { ...strict, ...asUser } : { runAsUser: 0, runAsGroup: 0 },
          volumeMounts: [cde, { name: 'home', mountPath: volume }, { name: 'etc', mountPath: etc }],
        },
      ],
      containers: [
        {
          name: 'workspace',
          image: section.image,
          ...pull,
          command: [`${place}/node`, `${place}/agent.mjs`],
          workingDir: home,
          env: [
            { name: 'HOME', value: home },
            { name: agentEnvironment.serverUrl, value: launch.serverUrl },
            {
              name: agentEnvironment.token,
              valueFrom: { secretKeyRef: { name: 'cde-agent', key: 'token' } },
            },
          ],
          resources: resourcesOf(section),
          securityContext: {
            ...strict,
            ...asUser,
            ...(section.readOnlyRoot && { readOnlyRootFilesystem: true }),
          },
          volumeMounts: [
            { ...cde, readOnly: true },
            { name: 'home', mountPath: home, subPath: 'home' },
            { name: 'etc', mountPath: '/etc/passwd', subPath: 'passwd' },
            { name: 'etc', mountPath: '/etc/group', subPath: 'group' },
            ...scratch.map((name) => ({ name, mountPath: `/${name.replace('-', '/')}` })),
          ],
        },
      ],
      volumes: [
        { name: 'cde', emptyDir: {} },
        { name: 'etc', emptyDir: {} },
        ...scratch.map((name) => ({ name, emptyDir: {} })),
        { name: 'home', persistentVolumeClaim: { claimName: 'home' } },
      ],
    },
  };
}
