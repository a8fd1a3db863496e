import { expect, test } from 'vitest';
import { readProfiles } from './profiles.ts';

test('a file of profiles, as written by admins and by Helm', () => {
  const read = readProfiles(`
# ScyllaDB
allow: [net.ipv6.*]
profiles:
  scylla:
    sysctls:
      fs.aio-max-nr: { atLeast: 1.048576e+06 }
      fs.file-max: { atLeast: "9223372036854775807" }
      vm.swappiness: 1
      net.ipv6.conf.all.forwarding: 1
      net.ipv4.tcp_rmem: "4096   87380 16777216"
    modules: [br_netfilter]
    nodeSelector: { pool: dev }
  nothing: {}
`);
  expect(read).toEqual({
    profiles: [
      {
        name: 'scylla',
        sysctls: new Map<string, object>([
          ['fs.aio-max-nr', { atLeast: 1_048_576n }],
          ['fs.file-max', { atLeast: 9223372036854775807n }],
          ['vm.swappiness', { exact: '1' }],
          ['net.ipv6.conf.all.forwarding', { exact: '1' }],
          ['net.ipv4.tcp_rmem', { exact: '4096 87380 16777216' }],
        ]),
        modules: ['br_netfilter'],
        nodeSelector: { pool: 'dev' },
      },
      { name: 'nothing', sysctls: new Map(), modules: [], nodeSelector: {} },
    ],
  });
  expect(readProfiles('')).toEqual({ profiles: [] });
});

test.each<[string, string, string]>([
  ['YAML that is none', 'profiles: [', '1:12 '],
  ['a list', '- a', '1:1 '],
  ['an unknown key at the top', 'profile: {}', '1:1 profile: not known here (known here: allow, profiles)'],
  [
    'an unknown key of a profile',
    'profiles:\n  a:\n    limits: {}',
    '3:5 profiles › a › limits: not known here (known here: sysctls, transparentHugePages, modules, nodeSelector)',
  ],
  ['a name that makes no label', 'profiles: { A_b: {} }', '1:13 profiles › A_b: use at most 48 lower-case'],
  ['a name that is too long', `profiles: { ${'a'.repeat(49)}: {} }`, 'use at most 48'],
  [
    'a way out of /proc/sys',
    'profiles: { a: { sysctls: { fs/../../x: 1 } } }',
    '1:29 profiles › a › sysctls › fs/../../x: write it with dots',
  ],
  [
    'a value of another sort',
    'profiles: { a: { sysctls: { vm.swappiness: [1] } } }',
    'write a number, a text, or { atLeast',
  ],
  ['half a number', 'profiles: { a: { sysctls: { vm.swappiness: 1.5 } } }', 'write'],
  [
    'a number that is rounded',
    'profiles: { a: { sysctls: { fs.file-max: 9223372036854775807 } } }',
    'in quotes',
  ],
  ['another wish', 'profiles: { a: { sysctls: { vm.swappiness: { atMost: 1 } } } }', 'atLeast'],
  ['two lines', 'profiles: { a: { sysctls: { vm.swappiness: "1\\n2" } } }', 'one line'],
  [
    'a module that is an option',
    'profiles: { a: { modules: ["--remove x"] } }',
    'the name of a kernel module',
  ],
  [
    'a label in another type',
    'profiles: { a: { nodeSelector: { gpu: true } } }',
    '1:34 profiles › a › nodeSelector › gpu',
  ],
  [
    'a sysctl that runs programs',
    'allow: [kernel.core_pattern]\nprofiles: { a: { sysctls: { kernel.core_pattern: core } } }',
    '2:29 profiles › a: noded never sets kernel.core_pattern: it names a program that the kernel runs as root',
  ],
  ['a sysctl of another family', 'profiles: { a: { sysctls: { kernel.panic: 1 } } }', 'add it to "allow"'],
  [
    'a sysctl of pods',
    'profiles: { a: { sysctls: { kernel.shmmax: 1 } } }',
    'each pod has its own kernel.shmmax',
  ],
])('refuses %s', (_, source, said) => {
  const read = readProfiles(source);
  expect('faults' in read && read.faults.join('\n')).toContain(said);
});
