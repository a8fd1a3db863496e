import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { until } from '../tests/kit/until.ts';
import { makeInterfaceWatch } from './interfaces.ts';
import { watchSysctls } from './watch.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'cde-watch-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const isRoot = process.platform === 'linux' && process.getuid?.() === 0;
test.skipIf(!isRoot)('a write to a real sysctl is noticed, also of a value that it already has', async () => {
  const path = '/proc/sys/vm/swappiness';
  let writes = 0;
  const watch = watchSysctls(() => {
    writes++;
  });
  try {
    watch.follow([path, '/proc/sys/vm/no_such_sysctl']);
    writeFileSync(path, readFileSync(path));
    await until(() => writes > 0, 'the write is noticed');
  } finally {
    watch.close();
  }
});

test('interfaces that appear and disappear are noticed if a sysctl concerns them', () => {
  const add = (name: string) => mkdirSync(join(root, 'net/ipv4/conf', name), { recursive: true });
  add('eth0');
  const watch = makeInterfaceWatch(root);
  watch.follow(['vm.swappiness']);
  add('eth1');
  expect(watch.hasChanged()).toBe(false);
  const followed = ['vm.swappiness', 'net.ipv4.conf.eth0.rp_filter'];
  watch.follow(followed);
  expect([watch.hasChanged(), watch.hasChanged()]).toEqual([true, false]);
  add('eth2');
  // A pass that has not seen it ends: it must not count as seen.
  watch.follow(followed);
  expect([watch.hasChanged(), watch.hasChanged()]).toEqual([true, false]);
  rmSync(join(root, 'net/ipv4/conf/eth2'), { recursive: true });
  expect(watch.hasChanged()).toBe(true);
});
