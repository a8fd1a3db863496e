import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { makeWriterSearch } from './writers.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'cde-writers-'));
  put('proc/1/comm', 'init\n');
});
afterEach(() => rmSync(root, { recursive: true, force: true }));
function put(path: string, text: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), text);
}
const search = (sysctl: string, value: string) =>
  makeWriterSearch({
    folders: ['etc', 'run', 'usr'].map((name) => join(root, name, 'sysctl.d')),
    shownAs: (path) => path.slice(root.length),
    proc: join(root, 'proc'),
  })(sysctl, value);

test('names the line that sets the value, otherwise the last one that sets the sysctl', () => {
  put('usr/sysctl.d/10-a.conf', '# vm.swappiness = 5\nvm.swappiness=10\n');
  put('etc/sysctl.d/50-b.conf', 'kernel.pid_max = 9\n\n -vm.swappiness =  30 \n');
  expect(search('vm.swappiness', '10')).toBe('/usr/sysctl.d/10-a.conf line 2 sets it to 10');
  expect(search('vm.swappiness', '77')).toBe('/etc/sysctl.d/50-b.conf line 3 sets it to 30');
  expect(search('vm.dirty_ratio', '1')).toBeNull();
});

test('a file hides those of the same name in later folders', () => {
  put('usr/sysctl.d/10-a.conf', 'vm.swappiness=10');
  put('etc/sysctl.d/10-a.conf', '');
  symlinkSync('/nowhere/sysctl.conf', join(root, 'etc/sysctl.d/99-sysctl.conf'));
  expect(search('vm.swappiness', '10')).toBeNull();
});

test('reads paths and wildcards as systemd does', () => {
  put('usr/sysctl.d/50-default.conf', 'net.ipv4.conf.*.rp_filter = 2\nnet/ipv4/tcp_rmem = 4096  87380 1\n');
  expect(search('net.ipv4.conf.eth0/100.rp_filter', '2')).toContain('50-default.conf line 1');
  expect(search('net.ipv4.tcp_rmem', '4096 87380 1')).toContain('line 2 sets it to 4096 87380 1');
});

test('without such a line, names a program that is known to set sysctls', () => {
  put('proc/812/comm', 'tuned\n');
  expect(search('vm.swappiness', '10')).toBe('the process tuned (812) runs on the node');
});
