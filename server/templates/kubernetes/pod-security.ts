import type { Path } from '../language/source.ts';
import { asList, asMap, type Issue } from '../language/tree.ts';

/** https://kubernetes.io/docs/concepts/security/pod-security-standards/ */
const baselineCapabilities = new Set([
  'AUDIT_WRITE',
  'CHOWN',
  'DAC_OVERRIDE',
  'FOWNER',
  'FSETID',
  'KILL',
  'MKNOD',
  'NET_BIND_SERVICE',
  'SETFCAP',
  'SETGID',
  'SETPCAP',
  'SETUID',
  'SYS_CHROOT',
]);
const safeSysctls = new Set([
  'kernel.shm_rmid_forced',
  'net.ipv4.ip_local_port_range',
  'net.ipv4.ip_local_reserved_ports',
  'net.ipv4.ip_unprivileged_port_start',
  'net.ipv4.ping_group_range',
  'net.ipv4.tcp_fin_timeout',
  'net.ipv4.tcp_keepalive_intvl',
  'net.ipv4.tcp_keepalive_probes',
  'net.ipv4.tcp_keepalive_time',
  'net.ipv4.tcp_rmem',
  'net.ipv4.tcp_syncookies',
  'net.ipv4.tcp_wmem',
]);
const restrictedVolumes = new Set([
  'configMap',
  'csi',
  'downwardAPI',
  'emptyDir',
  'ephemeral',
  'image',
  'persistentVolumeClaim',
  'projected',
  'secret',
]);

/**
 * What Pod Security would refuse of a pod at a level. Said here because the API server refuses only the pod
 * itself: its Deployment is accepted, and then nothing starts.
 * @param spec the pod's spec; texts that still hold an expression are taken for right
 * @param at where it is, for the paths of the issues
 */
export function podIssues(
  spec: Record<string, unknown>,
  at: Path,
  level: 'restricted' | 'baseline',
): Issue[] {
  const issues: Issue[] = [];
  const restricted = level === 'restricted';
  // Root of a user namespace is nobody on the node, so Kubernetes (1.35) lets such a pod have it.
  const ownUsers = spec.hostUsers === false;
  const refuse = (path: Path, what: string, hint?: string) => {
    if (issues.length >= maxIssues) return;
    issues.push({
      path: [...at, ...path],
      message: `${what}, which podSecurity: ${level} does not permit`,
      hint: hint ?? 'remove it, or raise kubernetes.podSecurity',
      onKey: true,
    });
  };
  const want = (path: Path, what: string, hint: string) => {
    if (issues.length >= maxIssues) return;
    issues.push({
      path: [...at, ...path],
      message: `podSecurity: ${level} wants ${what}`,
      hint,
      onKey: true,
    });
  };

  for (const key of ['hostNetwork', 'hostPID', 'hostIPC']) {
    if (spec[key] === true) refuse([key], `"${key}" shares what belongs to the node`);
  }
  asList(spec.volumes).forEach((volume, index) => {
    for (const type of Object.keys(asMap(volume))) {
      if (type === 'hostPath') refuse(['volumes', index, type], 'a hostPath volume is a folder of the node');
      else if (restricted && type !== 'name' && !restrictedVolumes.has(type)) {
        refuse(['volumes', index, type], `the volume is of the type ${type}`);
      }
    }
  });
  const pod = asMap(spec.securityContext);
  checkContext(pod, ['securityContext']);
  asList(pod.sysctls).forEach((sysctl, index) => {
    const { name } = asMap(sysctl);
    if (typeof name === 'string' && !isOpen(name) && !safeSysctls.has(name)) {
      refuse(['securityContext', 'sysctls', index, 'name'], `the sysctl ${name} reaches beyond the pod`);
    }
  });
  for (const list of ['containers', 'initContainers', 'ephemeralContainers']) {
    for (const [index, container] of asList(spec[list]).entries()) {
      checkContainer(asMap(container), [list, index]);
    }
  }
  return issues;

  /** What pods and containers have in common. */
  function checkContext(context: Record<string, unknown>, path: Path): void {
    if (asMap(context.windowsOptions).hostProcess === true) {
      refuse([...path, 'windowsOptions', 'hostProcess'], 'a host process runs on the node itself');
    }
    for (const profile of ['seccompProfile', 'appArmorProfile']) {
      if (asMap(context[profile]).type === 'Unconfined') {
        refuse([...path, profile, 'type'], `${profile} is Unconfined`, 'write RuntimeDefault');
      }
    }
    const selinux = asMap(context.seLinuxOptions);
    for (const key of ['user', 'role']) {
      if (typeof selinux[key] === 'string' && selinux[key] !== '' && !isOpen(selinux[key])) {
        refuse([...path, 'seLinuxOptions', key], `seLinuxOptions has a ${key}`);
      }
    }
    if (typeof selinux.type === 'string' && !isOpen(selinux.type)) {
      if (!/^(|container_t|container_init_t|container_kvm_t|container_engine_t)$/.test(selinux.type)) {
        refuse([...path, 'seLinuxOptions', 'type'], `the SELinux type is ${selinux.type}`);
      }
    }
    if (restricted && !ownUsers && Number(context.runAsUser ?? 1) === 0) {
      refuse([...path, 'runAsUser'], 'the user is root', 'choose another user: 1000');
    }
    if (restricted && !ownUsers && context.runAsNonRoot === false) {
      refuse([...path, 'runAsNonRoot'], 'the user may be root', 'write runAsNonRoot: true');
    }
  }

  function checkContainer(container: Record<string, unknown>, path: Path): void {
    const context = asMap(container.securityContext);
    const inContext: Path = [...path, 'securityContext'];
    checkContext(context, inContext);
    if (context.privileged === true)
      refuse([...inContext, 'privileged'], 'a privileged container owns its node');
    if (
      (restricted || !ownUsers) &&
      typeof context.procMount === 'string' &&
      !isOpen(context.procMount) &&
      context.procMount !== 'Default'
    ) {
      refuse([...inContext, 'procMount'], `procMount is ${context.procMount}`);
    }
    asList(container.ports).forEach((port, index) => {
      const { hostPort } = asMap(port);
      if (typeof hostPort === 'number' && hostPort !== 0) {
        refuse(
          [...path, 'ports', index, 'hostPort'],
          'a hostPort is a port of the node',
          'remove it: a Service reaches the port',
        );
      }
    });
    const { add, drop } = asMap(context.capabilities);
    asList(add).forEach((name, index) => {
      if (typeof name !== 'string' || isOpen(name)) return;
      const plain = name.replace(/^CAP_/, '');
      if (restricted ? plain !== 'NET_BIND_SERVICE' : !baselineCapabilities.has(plain)) {
        refuse([...inContext, 'capabilities', 'add', index], `the capability ${name} is added`);
      }
    });
    if (!restricted) return;
    const { allowPrivilegeEscalation: escalation } = context;
    if (escalation !== false && !isOpen(escalation)) {
      want(inContext, 'allowPrivilegeEscalation: false', 'add it to the securityContext of the container');
    }
    const dropsAll = isOpen(drop) || asList(drop).some((name) => name === 'ALL' || isOpen(name));
    if (!dropsAll) want(inContext, 'all capabilities dropped', 'write capabilities: {drop: [ALL]}');
    if (!ownUsers && ![context, pod].some(({ runAsNonRoot: given }) => given === true || isOpen(given))) {
      want(inContext, 'runAsNonRoot: true', 'add it to the securityContext of the container or the pod');
    }
    const seccomp = [context, pod].map(({ seccompProfile }) => asMap(seccompProfile).type);
    if (!seccomp.some((type) => ['RuntimeDefault', 'Localhost'].includes(String(type)) || isOpen(type))) {
      want(inContext, 'a seccomp profile', 'write seccompProfile: {type: RuntimeDefault}');
    }
  }
}

/** Nobody reads more of one pod. */
const maxIssues = 30;

/** A text whose expression is not evaluated yet. */
const isOpen = (value: unknown): boolean => typeof value === 'string' && value.includes('${{');
