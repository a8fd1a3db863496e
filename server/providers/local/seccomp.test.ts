import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { abis, absentCalls, deniedCalls, deniedRequests, seccompFilter } from './seccomp.ts';
import { drive, launchOf, levelsHere, makeScene, makeSpec } from './testing.ts';

interface Call {
  audit: number;
  number: number;
  args?: bigint[];
}

/** Executes a filter as the kernel does: classic BPF over struct seccomp_data. */
function evaluate(program: Uint8Array, { audit, number, args = [] }: Call): string {
  const data = Buffer.alloc(64);
  data.writeUInt32LE(number >>> 0, 0);
  data.writeUInt32LE(audit, 4);
  for (const [index, value] of args.entries()) data.writeBigUInt64LE(value, 16 + index * 8);
  const code = Buffer.from(program);
  let word = 0;
  for (let at = 0; at < code.length; at += 8) {
    const [opcode, operand] = [code.readUInt16LE(at), code.readUInt32LE(at + 4)];
    const jump = (holds: boolean) => {
      at += 8 * code[at + (holds ? 2 : 3)]!;
    };
    if (opcode === 0x20) word = data.readUInt32LE(operand);
    else if (opcode === 0x15) jump(word === operand);
    else if (opcode === 0x35) jump(word >= operand);
    else if (opcode === 0x06) {
      if (operand === 0x7fff0000) return 'allowed';
      if (operand >>> 16 === 5) return { 1: 'EPERM', 38: 'ENOSYS' }[operand & 0xffff] ?? 'another error';
      return 'another action';
    } else throw new Error(`opcode ${opcode}`);
  }
  throw new Error('the program ends without a result');
}

/** Calls that every toolchain, debugger and browser makes. */
const ordinary = {
  x86_64: {
    read: 0,
    clone: 56,
    ptrace: 101,
    adjtimex: 159,
    mount: 165,
    openat: 257,
    unshare: 272,
    clone3: 435,
  },
  i386: { read: 3, ptrace: 26, clone: 120, openat: 295, unshare: 310, socket: 359, clone3: 435 },
  aarch64: { read: 63, openat: 56, mount: 40, unshare: 97, ptrace: 117, clone: 220, clone3: 435 },
  arm: { read: 3, ptrace: 26, clone: 120, openat: 322, unshare: 337, cacheflush: 0xf0002, clone3: 435 },
};

describe.each([
  ['x64', 'x86_64'],
  ['x64', 'i386'],
  ['arm64', 'aarch64'],
  ['arm64', 'arm'],
] as const)('on %s, a program for %s', (architecture, name) => {
  const program = seccompFilter(architecture)!;
  const { audit, numbers } = abis[name] as { audit: number; numbers: Record<string, number> };
  const result = (number: number, ...args: bigint[]) => evaluate(program, { audit, number, args });

  test('cannot make a denied call', () => {
    const known = deniedCalls.filter((call) => numbers[call] !== undefined);
    expect(known.length).toBeGreaterThan(20);
    for (const call of known) expect(result(numbers[call]!), call).toBe('EPERM');
    for (const call of absentCalls) expect(result(numbers[call]!), call).toBe('ENOSYS');
  });

  test('can make any other call', () => {
    for (const [call, number] of Object.entries(ordinary[name])) expect(result(number), call).toBe('allowed');
    const refused = new Set<number>(
      Object.entries(numbers).flatMap(([call, it]) => (call === 'ioctl' ? [] : it)),
    );
    for (let number = 0; number < 500; number++)
      expect(result(number), String(number)).toEqual(
        refused.has(number) ? expect.stringMatching(/EPERM|ENOSYS/) : 'allowed',
      );
    expect(result(-1), 'a call that a tracer skips').toBe('allowed');
  });

  test('cannot type into a terminal, but has every other ioctl request', () => {
    for (const request of Object.values(deniedRequests)) {
      expect(result(numbers.ioctl!, 0n, BigInt(request))).toBe('EPERM');
      // The kernel ignores the upper half, so it must not hide a request.
      expect(result(numbers.ioctl!, 0n, BigInt(request) | (1n << 40n))).toBe('EPERM');
      expect(result(numbers.ioctl!, BigInt(request), 0x5401n)).toBe('allowed');
    }
    for (const request of [0x5401n, 0x5413n, 0x541bn, 0x5414n, 0xffffffffn])
      expect(result(numbers.ioctl!, 0n, request)).toBe('allowed');
  });
});

test('numbers of the x32 ABI bypass no rule', () => {
  const program = seccompFilter('x64')!;
  const { audit } = abis.x86_64;
  for (const number of [0x40000000, 0x40000000 | 250, 0x40000000 | 514, 512, 514, 547])
    expect(evaluate(program, { audit, number }), String(number)).toBe('ENOSYS');
  for (const number of [511, 548, 600]) expect(evaluate(program, { audit, number })).toBe('allowed');
});

test('a program of a foreign architecture makes no call at all', () => {
  const { arm, aarch64, i386, x86_64 } = abis;
  for (const { audit } of [arm, aarch64, { audit: 0xc00000f3 }])
    expect(evaluate(seccompFilter('x64')!, { audit, number: 63 })).toBe('ENOSYS');
  for (const { audit } of [i386, x86_64])
    expect(evaluate(seccompFilter('arm64')!, { audit, number: 0 })).toBe('ENOSYS');
});

test('an architecture without a table has no filter', () => {
  expect(seccompFilter('riscv64')).toBeNull();
});

test("fits the kernel's limit of 4096 instructions", () => {
  for (const architecture of ['x64', 'arm64'])
    expect(seccompFilter(architecture)!.length / 8).toBeLessThan(300);
});

const headers = {
  x86_64: '/usr/include/x86_64-linux-gnu/asm/unistd_64.h',
  i386: '/usr/include/x86_64-linux-gnu/asm/unistd_32.h',
  aarch64: '/usr/include/asm-generic/unistd.h',
} as const;
for (const [name, path] of Object.entries(headers)) {
  test.runIf(existsSync(path))(`the numbers for ${name} are the kernel's`, () => {
    const text = readFileSync(path, 'utf8');
    const calls = ['ioctl', ...deniedCalls, ...absentCalls];
    const numbers: Record<string, number> = abis[name as keyof typeof headers].numbers;
    for (const call of calls) {
      // The generic header has a few calls of 32-bit machines too.
      if (name === 'aarch64' && call === 'clock_settime64') continue;
      const found = new RegExp(`^#define __NR_${call}\\s+(\\d+)$`, 'm').exec(text)?.[1];
      if (found !== undefined) expect(numbers[call], call).toBe(Number(found));
      else if (call !== 'quotactl_fd') expect(numbers[call], call).toBeUndefined();
    }
  });
}

const native = { x64: abis.x86_64, arm64: abis.aarch64 }[process.arch as string];
const enclosed = native !== undefined && (await levelsHere()).includes('bwrap');
describe.runIf(enclosed)('in a workspace under bubblewrap', () => {
  const numbers = native!.numbers as Record<string, number>;
  let scene: ReturnType<typeof makeScene>;
  beforeEach(async () => {
    scene = makeScene();
    const provider = scene.provider('obedient', { isolation: 'bwrap' });
    const move = await drive((state) => provider.start(makeSpec('w1'), launchOf('b1'), state, scene.context));
    expect(move).toMatchObject({ kind: 'done', isolation: expect.stringContaining('with a seccomp filter') });
  });
  afterEach(() => scene.close());
  const perl = async (program: string) => {
    writeFileSync(join(scene.home('w1'), 'program.pl'), program, { mode: 0o644 });
    return (await scene.inside('perl program.pl')).out;
  };

  test('refused calls fail, also for root in a user namespace', async () => {
    const calls = [...deniedCalls, ...absentCalls].filter((call) => numbers[call] !== undefined);
    const attempts = calls.map(
      (call) => `$! = 0; syscall(${numbers[call]}, 0, 0, 0, 0, 0); print "${call}: ", $! + 0, "\\n";`,
    );
    const expected = calls.map((call) => `${call}: ${call.startsWith('io_uring') ? 38 : 1}\n`).join('');
    expect(await perl(attempts.join('\n'))).toBe(expected);
    expect((await scene.inside('unshare --user --map-root-user perl program.pl')).out).toBe(expected);
    // The same for pid 1, so tracing it gains nothing.
    expect((await scene.inside('grep -h ^Seccomp: /proc/1/status /proc/self/status')).out).toBe(
      'Seccomp:\t2\nSeccomp:\t2\n',
    );
  });

  test('nothing can be typed into a terminal', async () => {
    const attempts = [0x5412, 0x541c, 0x5412 + 2 ** 40].map(
      (request) => `$! = 0; syscall(${numbers.ioctl}, 0, ${request}, $text); print $! + 0, " ";`,
    );
    writeFileSync(join(scene.home('w1'), 'program.pl'), `my $text = "x"; ${attempts.join('\n')}`, {
      mode: 0o644,
    });
    const { out } = await scene.inside("script -qec 'tty; perl program.pl' /dev/null < /dev/null");
    expect(out).toMatch(/^\/dev\/pts\/\d+\s+1 1 1 /);
  });

  test('debuggers, user namespaces and Node work', async () => {
    const ptrace = { x64: 101, arm64: 117 }[process.arch as string];
    // PTRACE_TRACEME in the child, then PTRACE_CONT, which fails unless the child is traced and stopped.
    const tracer = `use POSIX ":sys_wait_h"; $| = 1; my $child = fork;
      if (!$child) { syscall(${ptrace}, 0, 0, 0, 0) == 0 or die "traceme: $!"; kill "STOP", $$; print "child\\n"; exit 7 }
      waitpid $child, WUNTRACED;
      syscall(${ptrace}, 7, $child, 0, 0) == 0 or die "cont: $!"; waitpid $child, 0; print $? >> 8, "\\n";`;
    expect(await perl(tracer)).toBe('child\n7\n');
    expect((await scene.inside('unshare --user --map-root-user --pid --fork --net id -u')).out).toBe('0\n');
    const program =
      "const fs = require('fs'); fs.promises.readFile('/etc/passwd').then((it) => console.log(it.length > 0, require('child_process').execSync('echo child') + ''))";
    const node = await scene.inside(`UV_USE_IO_URING=1 $(readlink -f /proc/$PPID/exe) -e "${program}"`);
    expect(node).toEqual({ status: 0, out: 'true child\n\n' });
  });
});
