/**
 * The system calls that a workspace may not make: a seccomp filter in classic BPF, in the format that `bwrap --seccomp`
 * reads (an array of struct sock_filter, little-endian).
 *
 * It is a deny list, like Flatpak's: everything else works as outside, including ptrace and user namespaces. Most of
 * these calls fail without privileges anyway. The filter also keeps their code, in which many kernel vulnerabilities
 * were found, out of reach of a namespace's root.
 *
 * Allowed on purpose: adjtimex and clock_adjtime (databases read the state of the clock), mbind and set_mempolicy (JVMs
 * and numerical libraries), name_to_handle_at (harmless without its counterpart), mount in a user namespace.
 */

const errors = { EPERM: 1, ENOSYS: 38 } as const;

interface Abi {
  /** AUDIT_ARCH_… of the kernel's audit.h. */
  audit: number;
  /** Call numbers by name, without the calls that the ABI does not have. */
  numbers: Record<string, number>;
  /** x86-64 kernels can accept calls of the x32 ABI, with different numbers, under the same architecture. */
  x32?: true;
}

/** Fail with EPERM. */
export const deniedCalls = [
  // Loads code into the kernel, or replaces it.
  ...['kexec_load', 'kexec_file_load', 'init_module', 'finit_module', 'delete_module', 'create_module'],
  ...['get_kernel_syms', 'query_module', 'bpf'],
  // Observes the kernel and other processes.
  ...['perf_event_open', 'lookup_dcookie', 'syslog'],
  // Keyrings belong to a user of the machine, not to a namespace.
  ...['add_key', 'request_key', 'keyctl'],
  // Stops another thread inside the kernel indefinitely, a building block of many exploits.
  'userfaultfd',
  // Opens files by inode, past the mounts.
  'open_by_handle_at',
  // Hardware, and the whole machine.
  ...['iopl', 'ioperm', 'reboot', 'swapon', 'swapoff', 'acct', 'quotactl', 'quotactl_fd'],
  ...['settimeofday', 'stime', 'clock_settime', 'clock_settime64', 'move_pages', 'migrate_pages'],
  // Obsolete.
  ...['uselib', 'nfsservctl', 'vm86', 'vm86old'],
] as const;

/** Fail with ENOSYS, as on older kernels, so that programs fall back. */
export const absentCalls = ['io_uring_setup', 'io_uring_enter', 'io_uring_register'] as const;

/** Requests of ioctl that put text into a terminal's input, as if its user had typed it. They fail with EPERM. */
export const deniedRequests = { TIOCSTI: 0x5412, TIOCLINUX: 0x541c } as const;

/** New calls have one number on all architectures. */
const commonNumbers = { io_uring_setup: 425, io_uring_enter: 426, io_uring_register: 427, quotactl_fd: 443 };

// From the kernel's tables (arch/x86/entry/syscalls, include/uapi/asm-generic/unistd.h, arch/arm/tools).
export const abis = {
  x86_64: {
    audit: 0xc000003e,
    x32: true,
    numbers: {
      ...{ ioctl: 16, syslog: 103, uselib: 134, acct: 163, settimeofday: 164, swapon: 167, swapoff: 168 },
      ...{ reboot: 169, iopl: 172, ioperm: 173, create_module: 174, init_module: 175, delete_module: 176 },
      ...{ get_kernel_syms: 177, query_module: 178, quotactl: 179, nfsservctl: 180, lookup_dcookie: 212 },
      ...{ clock_settime: 227, kexec_load: 246, add_key: 248, request_key: 249, keyctl: 250 },
      ...{ migrate_pages: 256, move_pages: 279, perf_event_open: 298, open_by_handle_at: 304 },
      ...{ finit_module: 313, kexec_file_load: 320, bpf: 321, userfaultfd: 323 },
      ...commonNumbers,
    },
  },
  i386: {
    audit: 0x40000003,
    numbers: {
      ...{ stime: 25, acct: 51, ioctl: 54, settimeofday: 79, uselib: 86, swapon: 87, reboot: 88 },
      ...{ ioperm: 101, syslog: 103, iopl: 110, vm86old: 113, swapoff: 115, create_module: 127 },
      ...{ init_module: 128, delete_module: 129, get_kernel_syms: 130, quotactl: 131, vm86: 166 },
      ...{ query_module: 167, nfsservctl: 169, lookup_dcookie: 253, clock_settime: 264, kexec_load: 283 },
      ...{ add_key: 286, request_key: 287, keyctl: 288, migrate_pages: 294, move_pages: 317 },
      ...{ perf_event_open: 336, open_by_handle_at: 342, finit_module: 350, bpf: 357, userfaultfd: 374 },
      ...{ clock_settime64: 404 },
      ...commonNumbers,
    },
  },
  aarch64: {
    audit: 0xc00000b7,
    numbers: {
      ...{ lookup_dcookie: 18, ioctl: 29, nfsservctl: 42, quotactl: 60, acct: 89, kexec_load: 104 },
      ...{ init_module: 105, delete_module: 106, clock_settime: 112, syslog: 116, reboot: 142 },
      ...{ settimeofday: 170, add_key: 217, request_key: 218, keyctl: 219, swapon: 224, swapoff: 225 },
      ...{ migrate_pages: 238, move_pages: 239, perf_event_open: 241, open_by_handle_at: 265 },
      ...{ finit_module: 273, bpf: 280, userfaultfd: 282, kexec_file_load: 294 },
      ...commonNumbers,
    },
  },
  arm: {
    audit: 0x40000028,
    numbers: {
      ...{ acct: 51, ioctl: 54, settimeofday: 79, uselib: 86, swapon: 87, reboot: 88, syslog: 103 },
      ...{ swapoff: 115, init_module: 128, delete_module: 129, quotactl: 131, nfsservctl: 169 },
      ...{ lookup_dcookie: 249, clock_settime: 262, add_key: 309, request_key: 310, keyctl: 311 },
      ...{ move_pages: 344, kexec_load: 347, perf_event_open: 364, open_by_handle_at: 371 },
      ...{ finit_module: 379, bpf: 386, userfaultfd: 388, migrate_pages: 400, kexec_file_load: 401 },
      ...{ clock_settime64: 404 },
      ...commonNumbers,
    },
  },
} satisfies Record<string, Abi>;

/** The ABIs that a kernel executes, its own and the 32-bit one, by Node's name for the architecture. */
const abisOf: Record<string, Abi[] | undefined> = {
  x64: [abis.x86_64, abis.i386],
  arm64: [abis.aarch64, abis.arm],
};

// struct seccomp_data: int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6].
const offsets = { nr: 0, arch: 4, lowWordOfSecondArgument: 24 };
// From linux/bpf_common.h: BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_JMP|BPF_JGE|BPF_K, BPF_RET|BPF_K.
const opcodes = { load: 0x20, jumpIfEqual: 0x15, jumpIfAtLeast: 0x35, return: 0x06 };
const allow = 0x7fff0000;
const failWith = (error: keyof typeof errors) => 0x00050000 | errors[error];

interface Instruction {
  opcode: number;
  operand: number;
  /** How many instructions a jump skips if its test holds, and if not. */
  ifTrue?: number;
  ifFalse?: number;
}

const load = (offset: number): Instruction => ({ opcode: opcodes.load, operand: offset });
const finish = (operand: number): Instruction => ({ opcode: opcodes.return, operand });
/** If the loaded word is `operand`, the filter's result is `result`. */
const onEqual = (operand: number, result: number): Instruction[] => [
  { opcode: opcodes.jumpIfEqual, operand, ifTrue: 0, ifFalse: 1 },
  finish(result),
];
const onAtLeast = (operand: number, result: number): Instruction[] => [
  { opcode: opcodes.jumpIfAtLeast, operand, ifTrue: 0, ifFalse: 1 },
  finish(result),
];

function rulesOf(abi: Abi): Instruction[] {
  const numbersOf = (names: readonly string[]) => names.flatMap((name) => abi.numbers[name] ?? []);
  const requests = Object.values(deniedRequests).flatMap((request) => onEqual(request, failWith('EPERM')));
  return [
    load(offsets.nr),
    // A tracer skips a call by setting its number to -1.
    ...onEqual(0xffffffff, allow),
    ...numbersOf(deniedCalls).flatMap((number) => onEqual(number, failWith('EPERM'))),
    ...numbersOf(absentCalls).flatMap((number) => onEqual(number, failWith('ENOSYS'))),
    ...(abi.x32 ? x32Rules : []),
    { opcode: opcodes.jumpIfEqual, operand: abi.numbers.ioctl!, ifTrue: 1, ifFalse: 0 },
    finish(allow),
    // The kernel reads only the lower 32 bits of the request.
    load(offsets.lowWordOfSecondArgument),
    ...requests,
    finish(allow),
  ];
}

/** x32 numbers have bit 30, except that some kernels accept 512 to 547 without it. No 64-bit call will have those. */
const x32Rules: Instruction[] = [
  ...onAtLeast(0x40000000, failWith('ENOSYS')),
  { opcode: opcodes.jumpIfAtLeast, operand: 548, ifTrue: 2, ifFalse: 0 },
  ...onAtLeast(512, failWith('ENOSYS')),
];

function assemble(instructions: Instruction[]): Uint8Array {
  const program = Buffer.alloc(instructions.length * 8);
  for (const [index, { opcode, operand, ifTrue = 0, ifFalse = 0 }] of instructions.entries()) {
    program.writeUInt16LE(opcode, index * 8);
    // Throws if a jump is too long for its byte.
    program.writeUInt8(ifTrue, index * 8 + 2);
    program.writeUInt8(ifFalse, index * 8 + 3);
    program.writeUInt32LE(operand, index * 8 + 4);
  }
  return program;
}

/** The filter for this architecture; null if its call numbers are unknown. */
export function seccompFilter(architecture: string = process.arch): Uint8Array | null {
  const known = abisOf[architecture];
  if (!known) return null;
  const sections = known.flatMap((abi) => {
    const rules = rulesOf(abi);
    return [{ opcode: opcodes.jumpIfEqual, operand: abi.audit, ifTrue: 0, ifFalse: rules.length }, ...rules];
  });
  // Any other ABI is denied all calls.
  return assemble([load(offsets.arch), ...sections, finish(failWith('ENOSYS'))]);
}
