// Runs in its own network namespace: applies profiles to the real /proc/sys there and prints the result.

import { makeModules } from '../modules.ts';
import { openOriginals } from '../originals.ts';
import { readProfiles } from '../profiles.ts';
import { makeReconciler } from '../reconcile.ts';
import { makeSysctls } from '../sysctls.ts';

const sysctls = makeSysctls('/proc/sys');
const read = readProfiles(`
profiles:
  good: { sysctls: { net.core.somaxconn: { atLeast: 5000 }, net.ipv4.tcp_rmem: 4096 140000 6291456 } }
  bad: { sysctls: { net.ipv4.tcp_early_retrans: 9 } }
`);
if ('faults' in read) throw new Error(read.faults.join('\n'));
const start = () =>
  makeReconciler({
    sysctls,
    modules: makeModules({ loaded: '/sys/module' }),
    originals: openOriginals(process.argv[2]!, sysctls.bootId()),
  });
const now = () => ({
  somaxconn: sysctls.read('net.core.somaxconn'),
  rmem: sysctls.read('net.ipv4.tcp_rmem'),
});
const before = now();
const { states } = await start().pass(read.profiles);
const during = { ...now(), states: Object.fromEntries(states) };
sysctls.write('net.core.somaxconn', '4500');
await start().pass(read.profiles);
const repaired = sysctls.read('net.core.somaxconn');
await start().pass([]);
console.log(JSON.stringify({ before, during, repaired, after: now() }));
