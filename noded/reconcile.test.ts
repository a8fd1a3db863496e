// The reconciler on the machine's kernel if possible (root, harmless settings or those of a network namespace, restored at the
// end), and on a fake folder for values that no kernel should get.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { makeContention } from './contention.ts';
import { describeDryRun } from './dry-run.ts';
import { listInterfaces } from './interfaces.ts';
import { makeModules } from './modules.ts';
import { openOriginals } from './originals.ts';
import { type Profile, readProfiles } from './profiles.ts';
import { type Change, makeReconciler } from './reconcile.ts';
import { makeSysctls, type Sysctls } from './sysctls.ts';

let folder: string;
let root: string;
let record: string;
let changes: Change[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cde-noded-'));
  root = join(folder, 'fake-proc-sys');
  record = join(folder, 'state/originals.json');
  changes = [];
  put('kernel.random.boot_id', 'boot-1');
  put('fs.aio-max-nr', '65536');
  put('vm.swappiness', '60');
  put('net.ipv4.tcp_rmem', '4096\t131072\t6291456');
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const pathOf = (name: string) => join(root, name.replaceAll('.', '/'));
function put(name: string, value: string): void {
  mkdirSync(dirname(pathOf(name)), { recursive: true });
  writeFileSync(pathOf(name), `${value}\n`);
}
const value = (name: string) => readFileSync(pathOf(name), 'utf8').trim();
function profiles(body: object): Profile[] {
  const read = readProfiles(JSON.stringify({ profiles: body }));
  if ('faults' in read) throw new Error(read.faults.join('\n'));
  return read.profiles;
}
/** A reconciler as after a start of noded, with only the state on disk. */
function started(sysctls: Sysctls = makeSysctls(root)) {
  return makeReconciler({
    sysctls,
    modules: makeModules({ loaded: '/sys/module' }),
    originals: openOriginals(record, sysctls.bootId()),
    onChange: (change) => changes.push(change),
  });
}
const pass = async (body: object, keeper = started()) => {
  const { states, left } = await keeper.pass(profiles(body));
  expect([...left]).toEqual([]);
  return Object.fromEntries(states);
};
const ready = { state: 'ready' };

test('a profile is applied, maintained, and restored when no profile needs it', async () => {
  const scylla = { sysctls: { 'fs.aio-max-nr': { atLeast: 1048576 }, 'vm.swappiness': 1 } };
  expect(await pass({ scylla })).toEqual({ scylla: ready });
  expect([value('fs.aio-max-nr'), value('vm.swappiness')]).toEqual(['1048576', '1']);

  put('vm.swappiness', '30');
  expect(await pass({ scylla })).toEqual({ scylla: ready });
  expect(value('vm.swappiness')).toBe('1');
  expect(changes.at(-1)).toEqual({ what: 'repaired', sysctl: 'vm.swappiness', from: '30', to: '1' });

  expect(await pass({})).toEqual({});
  expect([value('fs.aio-max-nr'), value('vm.swappiness')]).toEqual(['65536', '60']);
  expect(JSON.parse(readFileSync(record, 'utf8')).sysctls).toEqual({});
});

test('"at least" takes the largest request, leaves larger values alone, and lowers what we raised', async () => {
  const of = (atLeast: number) => ({ sysctls: { 'fs.aio-max-nr': { atLeast } } });
  await pass({ a: of(100_000), b: of(200_000) });
  expect(value('fs.aio-max-nr')).toBe('200000');
  await pass({ a: of(100_000) });
  expect(value('fs.aio-max-nr')).toBe('100000');
  await pass({ a: of(1_000) });
  expect(value('fs.aio-max-nr')).toBe('65536');
  await pass({ a: of(100_000) });
  put('fs.aio-max-nr', '900000');
  expect(await pass({ a: of(100_000) })).toEqual({ a: ready });
  expect(value('fs.aio-max-nr')).toBe('900000');
  // Changed by something else, so there is nothing to restore.
  await pass({});
  expect(value('fs.aio-max-nr')).toBe('900000');
  expect(changes.at(-1)?.what).toBe('given-up');
});

test("numbers beyond JavaScript's range, and the kernel's spacing", async () => {
  put('fs.file-max', '9223372036854775806');
  const big = { sysctls: { 'fs.file-max': { atLeast: '9223372036854775807' } } };
  const several = { sysctls: { 'net.ipv4.tcp_rmem': '4096  131072 6291456' } };
  expect(await pass({ big, several })).toEqual({ big: ready, several: ready });
  expect(value('fs.file-max')).toBe('9223372036854775807');
  expect(changes.map(({ sysctl }) => sysctl)).toEqual(['fs.file-max']);
});

test('profiles in conflict are reported, not applied, and block no others', async () => {
  const a = { sysctls: { 'vm.swappiness': 1, 'fs.aio-max-nr': 70_000 } };
  const b = { sysctls: { 'vm.swappiness': 10 } };
  const c = { sysctls: { 'fs.aio-max-nr': { atLeast: 70_000 } } };
  expect(await pass({ a, c })).toEqual({ a: ready, c: ready });
  const states = await pass({ a, b, c });
  expect(states.a).toMatchObject({ state: 'not-ready', reason: 'conflict' });
  expect(states.b).toMatchObject({
    message: expect.stringContaining('vm.swappiness should be 10, but the profile a wants 1'),
  });
  expect(states.c).toEqual(ready);
  // The value stays, because the profile was not removed but became ambiguous.
  expect(value('vm.swappiness')).toBe('1');
  expect(await pass({ c })).toEqual({ c: ready });
  expect(value('vm.swappiness')).toBe('60');
});

test('a profile that cannot be met is not started', async () => {
  const a = { sysctls: { 'vm.swappiness': 1, 'fs.nr_open': 9 } };
  const b = { modules: ['cde_no_such_module'], sysctls: { 'fs.aio-max-nr': 70_000 } };
  const c = { sysctls: { 'net.ipv4.tcp_rmem': { atLeast: 3 } } };
  const states = await pass({ a, b, c });
  expect(states.a).toMatchObject({
    reason: 'sysctl-missing',
    message: expect.stringContaining('fs.nr_open'),
  });
  expect(states.b).toMatchObject({
    reason: 'module-failed',
    message: expect.stringContaining('cde_no_such_module'),
  });
  expect(states.c).toMatchObject({ reason: 'sysctl-not-a-number' });
  expect(changes).toEqual([]);
});

test('killed at each step of each write, the next start maintains and restores as if nothing had happened', async () => {
  const steps = ['a', 'b', null] as const;
  const bodies = {
    a: { x: { sysctls: { 'vm.swappiness': 1, 'fs.aio-max-nr': { atLeast: 100_000 } } } },
    b: { x: { sysctls: { 'vm.swappiness': 2, 'fs.aio-max-nr': { atLeast: 90_000 } } } },
  };
  const killed = new Error('killed');
  /** Dies at its n-th access to the kernel or the record, before or after its effect. */
  for (let touch = 1; touch <= 40; touch++) {
    rmSync(dirname(record), { recursive: true, force: true });
    put('vm.swappiness', '60');
    put('fs.aio-max-nr', '65536');
    let left = touch;
    const dying = <T>(act: () => T): T => {
      if (--left <= 0) throw killed;
      const result = act();
      if (--left <= 0) throw killed;
      return result;
    };
    const real = makeSysctls(root);
    let died = false;
    for (const step of steps) {
      const sysctls: Sysctls = { ...real, write: (name, text) => dying(() => real.write(name, text)) };
      const kept = openOriginals(record, real.bootId());
      const keeper = makeReconciler({
        sysctls,
        modules: makeModules({ loaded: '/sys/module' }),
        originals: { ...kept, put: (name, entry) => dying(() => kept.put(name, entry)) },
      });
      await keeper.pass(step ? profiles(bodies[step]) : []).catch((error) => {
        expect(error).toBe(killed);
      });
      if (left <= 0) {
        died = true;
        break;
      }
    }
    // The next start applies the current profiles, and in the end everything is as in the beginning.
    await pass(bodies.b);
    expect([value('vm.swappiness'), value('fs.aio-max-nr')], `touch ${touch}`).toEqual(['2', '90000']);
    await pass({});
    expect([value('vm.swappiness'), value('fs.aio-max-nr')], `touch ${touch}`).toEqual(['60', '65536']);
    if (!died) break;
  }
});

test('after a boot the original values are those of the new kernel', async () => {
  await pass({ a: { sysctls: { 'vm.swappiness': 1 } } });
  put('kernel.random.boot_id', 'boot-2');
  put('vm.swappiness', '40');
  await pass({ a: { sysctls: { 'vm.swappiness': 1 } } });
  await pass({});
  expect(value('vm.swappiness')).toBe('40');
});

test('in another namespace nothing is changed: it is another setting with the same name', async () => {
  put('net.core.somaxconn', '4096');
  const a = { sysctls: { 'net.core.somaxconn': 5000 } };
  await pass({ a });
  const moved = started({ ...makeSysctls(root), namespaceOf: () => 'net:[1]' });
  expect(await pass({ a }, moved)).toMatchObject({ a: { message: expect.stringContaining('hostNetwork') } });
  expect([...(await moved.pass([])).left.keys()]).toEqual(['net.core.somaxconn']);
  expect(await pass({})).toEqual({});
  expect(value('net.core.somaxconn')).toBe('4096');
});

test('a record that cannot be read is not overwritten', () => {
  mkdirSync(dirname(record), { recursive: true });
  writeFileSync(record, '{"bootId":');
  expect(() => started()).toThrow(/cannot be read.*Restore the values that it names by hand/s);
  expect(readFileSync(record, 'utf8')).toBe('{"bootId":');
});

const root0 = process.platform === 'linux' && process.getuid?.() === 0;
test.skipIf(!root0)(
  'the real kernel: values are set, rejected, rounded and restored, in a separate network namespace',
  () => {
    const said = execFileSync(
      'unshare',
      ['-n', process.execPath, join(import.meta.dirname, 'testing/real-kernel.ts'), record],
      { encoding: 'utf8' },
    );
    expect(JSON.parse(said)).toEqual({
      before: { somaxconn: '4096', rmem: expect.any(String) },
      during: {
        somaxconn: '5000',
        rmem: '4096 140000 6291456',
        states: {
          good: ready,
          bad: {
            state: 'not-ready',
            reason: 'sysctl-refused',
            message: expect.stringContaining('the kernel rejects this value (EINVAL)'),
          },
        },
      },
      repaired: '5000',
      after: { somaxconn: '4096', rmem: expect.any(String) },
    });
  },
);

test('transparent huge pages are set and restored exactly', async () => {
  const pages = join(folder, 'transparent_hugepage');
  mkdirSync(pages);
  const show = (name: string, chosen: string, all: string) =>
    writeFileSync(join(pages, name), `${all.replace(chosen, `[${chosen}]`)}\n`);
  const enabled = 'always madvise never';
  const defrag = 'always defer defer+madvise madvise never';
  show('enabled', 'madvise', enabled);
  show('defrag', 'never', defrag);
  const real = makeSysctls(root, pages);
  /** The kernel puts the chosen word in brackets. */
  const sysctls: Sysctls = {
    ...real,
    write: (name, word) =>
      name.endsWith('.enabled') ? show('enabled', word, enabled) : show('defrag', word, defrag),
  };
  const keeper = started(sysctls);
  const a = { transparentHugePages: { enabled: 'never', defrag: 'madvise' } };
  const b = { transparentHugePages: { enabled: 'always' } };
  expect(await pass({ a }, keeper)).toEqual({ a: ready });
  expect(sysctls.read('transparent_hugepage.enabled')).toBe('never');
  expect(sysctls.read('transparent_hugepage.defrag')).toBe('madvise');
  expect(await pass({ a, b }, keeper)).toMatchObject({
    a: { reason: 'conflict' },
    b: { reason: 'conflict' },
  });
  await pass({}, started(sysctls));
  expect(sysctls.read('transparent_hugepage.enabled')).toBe('madvise');
  expect(sysctls.read('transparent_hugepage.defrag')).toBe('never');
});

test('a contested value makes the profile not ready, and is not written on each pass', async () => {
  let ms = 0;
  const clock = () => ms;
  const sysctls = makeSysctls(root);
  const keeper = makeReconciler({
    sysctls,
    modules: makeModules({ loaded: '/sys/module' }),
    originals: openOriginals(record, sysctls.bootId()),
    contention: makeContention({ now: clock, findWriter: () => '/etc/sysctl.d/9.conf line 1 sets it to 60' }),
    onChange: (change) => changes.push(change),
    now: clock,
  });
  const a = { sysctls: { 'vm.swappiness': 1 } };
  let states: Record<string, unknown> = {};
  for (; ms < 60_000; ms += 2_000) {
    states = await pass({ a }, keeper);
    put('vm.swappiness', '60');
  }
  expect(states.a).toMatchObject({
    state: 'not-ready',
    reason: 'contested',
    message: expect.stringContaining('/etc/sysctl.d/9.conf line 1 sets it to 60'),
  });
  // 6 until it is recognized, then after 10 and 20 s.
  expect(changes.filter(({ what }) => what === 'repaired')).toHaveLength(8);
  const { drifts } = await keeper.pass(profiles({ a }));
  expect(drifts.get('a')).toMatchObject({ sysctl: 'vm.swappiness', from: '60', to: '1' });
  // The other program gives up.
  for (let rounds = 0; rounds < 120; rounds++, ms += 2_000) states = await pass({ a }, keeper);
  expect(states.a).toEqual(ready);
  expect(value('vm.swappiness')).toBe('1');
});

test('a wildcard covers the interfaces that come and go, but not "all" and "default"', async () => {
  const name = (one: string) => `net.ipv4.conf.${one}.rp_filter`;
  for (const one of ['all', 'default', 'eth0']) put(name(one), '0');
  put('net.ipv4.conf.lo.rp_filter', '7');
  const keeper = () =>
    makeReconciler({
      sysctls: makeSysctls(root),
      modules: makeModules({ loaded: '/sys/module' }),
      originals: openOriginals(record, 'boot-1'),
      interfacesOf: (family) => listInterfaces(root, family),
    });
  const run = async (body: object) => {
    const read = readProfiles(JSON.stringify({ allow: ['net.ipv4.conf.*'], profiles: body }));
    if ('faults' in read) throw new Error(read.faults.join('\n'));
    return Object.fromEntries((await keeper().pass(read.profiles)).states);
  };
  const a = { sysctls: { [name('*')]: 1, [name('lo')]: 2 } };
  expect(await run({ a })).toEqual({ a: ready });
  const vlan = join(root, 'net/ipv4/conf/eth0.100/rp_filter');
  mkdirSync(dirname(vlan));
  writeFileSync(vlan, '0\n');
  rmSync(dirname(pathOf(name('eth0'))), { recursive: true });
  expect(await run({ a })).toEqual({ a: ready });
  expect(readFileSync(vlan, 'utf8').trim()).toBe('1');
  expect(['all', 'default', 'lo'].map((one) => value(name(one)))).toEqual(['0', '0', '2']);
  await run({});
  expect(readFileSync(vlan, 'utf8').trim()).toBe('0');
  expect(value(name('lo'))).toBe('7');
});

test('a dry run says what would change, and changes nothing', async () => {
  await pass({ old: { sysctls: { 'vm.swappiness': 5 } } });
  put('net.core.somaxconn', '4096');
  const sysctls = makeSysctls(root);
  const before = readFileSync(record, 'utf8');
  const lines = await describeDryRun({
    profiles: profiles({
      a: { sysctls: { 'fs.aio-max-nr': { atLeast: 100_000 } }, modules: ['cde_no_such_module'] },
      b: { sysctls: { 'net.core.somaxconn': 1 } },
      c: { sysctls: { 'net.core.somaxconn': 2 } },
      d: { sysctls: { 'vm.dirty_ratio': 2 }, nodeSelector: { pool: 'dev' } },
    }),
    labels: {},
    sysctls,
    originals: openOriginals(record, sysctls.bootId()),
    loadedModules: '/sys/module',
    interfacesOf: () => [],
  });
  expect(lines).toEqual([
    'load the module cde_no_such_module, unless it is built in',
    'set fs.aio-max-nr from 65536 to 100000',
    'restore vm.swappiness from 5 to 60',
    '',
    'profile a: ready',
    expect.stringContaining('profile b: net.core.somaxconn should be 1, but the profile c wants 2'),
    expect.stringContaining('profile c: net.core.somaxconn should be 2'),
    'profile d: not for this node',
  ]);
  expect([value('fs.aio-max-nr'), value('vm.swappiness')]).toEqual(['65536', '5']);
  expect(readFileSync(record, 'utf8')).toBe(before);
});
