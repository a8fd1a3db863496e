import { readProfiles } from '@cde/noded/profiles.ts';
import { kernelPlan } from '@cde/server/providers/vm/kernel.ts';
import { parseTemplate } from '@cde/server/templates/parse.ts';
import { expect, test } from 'vitest';

const sectionOf = (kernel: string) =>
  parseTemplate({
    'template.yaml': `name: t\nprovider: ec2\nec2:\n  image: ami-1\n  instanceType: t3.large\n  kernel: ${kernel}\n`,
  });

test('noded takes what a template says about the kernel of its machine', () => {
  const { template, faults } = sectionOf(`
    sysctls:
      fs.aio-max-nr: { atLeast: 1048576 }
      fs.file-max: { atLeast: "9223372036854775807" }
      vm.swappiness: 1
      net.ipv4.tcp_rmem: 4096 131072 6291456
      net.ipv4.conf.*.rp_filter: 2
      net.ipv6.conf.all.forwarding: 1
    transparentHugePages: { enabled: madvise, defrag: defer+madvise }
    modules: [br_netfilter]`);
  expect(faults).toEqual([]);
  const read = readProfiles(kernelPlan(template!.ec2!.kernel!).profiles);
  if ('faults' in read) throw new Error(read.faults.join('\n'));
  expect(read.profiles).toHaveLength(1);
  expect(read.profiles[0]!.sysctls.get('fs.aio-max-nr')).toEqual({ atLeast: 1048576n });
  expect(read.profiles[0]!.modules).toEqual(['br_netfilter']);
  expect(readProfiles(kernelPlan(sectionOf('{}').template!.ec2!.kernel!).profiles)).toMatchObject({
    profiles: [{ modules: [] }],
  });
});

test.each([
  ['{ sysctls: { "../etc": 1 } }', 'write it with dots'],
  ['{ sysctls: { vm.swappiness: [1] } }', 'vm.swappiness'],
  ['{ modules: ["a b"] }', 'name of a kernel module'],
  ['{ sysctl: {} }', 'sysctl'],
])('a template with the kernel section %s is rejected', (kernel, message) => {
  expect(JSON.stringify(sectionOf(kernel).faults)).toContain(message);
});
