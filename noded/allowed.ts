/** Why noded does not set a sysctl, and what to do about it. */
export interface SysctlRejection {
  message: string;
  hint: string;
}

/** Sysctls that programs on a node need and that harm nothing else there. A trailing `.*` covers everything below. */
const nodeWide = [
  'fs.aio-max-nr',
  'fs.epoll.*',
  'fs.file-max',
  'fs.inotify.*',
  'fs.nr_open',
  'fs.pipe-max-size',
  'fs.pipe-user-pages-hard',
  'fs.pipe-user-pages-soft',
  'kernel.keys.*',
  'kernel.numa_balancing',
  'kernel.perf_event_max_sample_rate',
  'kernel.perf_event_mlock_kb',
  'kernel.perf_event_paranoid',
  'kernel.pid_max',
  'kernel.sched_autogroup_enabled',
  'kernel.threads-max',
  'kernel.timer_migration',
  'net.core.*',
  'net.ipv4.tcp_*',
  'net.ipv4.udp_*',
  'net.netfilter.nf_conntrack_*',
  'vm.dirty_*',
  'vm.max_map_count',
  'vm.min_free_kbytes',
  'vm.nr_hugepages',
  'vm.overcommit_*',
  'vm.swappiness',
  'vm.vfs_cache_pressure',
  'vm.watermark_scale_factor',
  'vm.zone_reclaim_mode',
] as const;

/** Never set, even if `allow` names them. */
const never: readonly (readonly [pattern: string, why: string])[] = [
  ['kernel.core_pattern', 'it names a program that the kernel runs as root'],
  ['kernel.core_pipe_limit', 'it belongs to a program that the kernel runs as root'],
  ['kernel.modprobe', 'it names a program that the kernel runs as root'],
  ['kernel.hotplug', 'it names a program that the kernel runs as root'],
  ['kernel.poweroff_cmd', 'it names a program that the kernel runs as root'],
  ['kernel.usermodehelper.*', 'it says what programs of the kernel may do'],
  ['fs.binfmt_misc.*', 'it names programs that the kernel runs'],
  ['kernel.sysrq', 'it lets others restart the node'],
  ['kernel.modules_disabled', 'it cannot be restored'],
  ['kernel.kexec_load_disabled', 'it cannot be restored'],
  ['kernel.unprivileged_bpf_disabled', 'it cannot be restored'],
  ['kernel.yama.ptrace_scope', 'it cannot always be restored'],
  ['kernel.ns_last_pid', 'it is an act, not a setting'],
  ['kernel.random.*', 'it is an act, not a setting'],
  ['vm.drop_caches', 'it is an act, not a setting'],
  ['vm.compact_memory', 'it is an act, not a setting'],
  ['net.ipv4.route.flush', 'it is an act, not a setting'],
  ['net.ipv6.route.flush', 'it is an act, not a setting'],
];

/** The kernel has these for each IPC namespace, so the node's values do not affect pods. */
const ofPods = ['kernel.msg*', 'kernel.sem', 'kernel.shm*', 'kernel.auto_msgmni', 'fs.mqueue.*'];

/** For the chart, which checks its values against the same lists. */
export const sysctlPatterns = { nodeWide, never: never.map(([pattern]) => pattern), ofPods };

const matches = (pattern: string, name: string) =>
  pattern.endsWith('*') ? name.startsWith(pattern.slice(0, -1)) : pattern === name;

/** Returns null if noded sets it. `allow`: sysctls that the admin adds; a trailing `.*` covers everything below. */
export function checkSysctl(name: string, allow: readonly string[]): SysctlRejection | null {
  const forbidden = never.find(([pattern]) => matches(pattern, name));
  if (forbidden)
    return {
      message: `noded never sets ${name}: ${forbidden[1]}`,
      hint: 'remove it; "allow" does not change this',
    };
  if (ofPods.some((pattern) => matches(pattern, name)))
    return {
      message: `each pod has its own ${name}, which the node's does not affect`,
      hint: 'remove it; a pod sets it with securityContext.sysctls',
    };
  if ([...nodeWide, ...allow].some((pattern) => matches(pattern, name))) return null;
  return {
    message: `${name} is not among the sysctls that noded sets by default`,
    hint: `add it to "allow" if you need it; allowed without that: ${nodeWide.join(', ')}`,
  };
}
