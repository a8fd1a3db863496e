import type { Instance, Subnet, Volume } from '@aws-sdk/client-ec2';
import { Ec2Section } from '@cde/api/template-file.ts';
import { expect, test } from 'vitest';
import type { WorkspaceSpec } from '../provider.ts';
import { isThrottled, isUnreachable } from './client.ts';
import { explainEndOf } from './ends.ts';
import { describeIsolation, gibibytes, type InstancePlan, planOf, workspaceInstance } from './instance.ts';
import { tagOf, tags } from './names.ts';
import { refusal } from './refusal.ts';

const section = (given: Record<string, unknown> = {}) =>
  Ec2Section.parse({ image: 'ami-1', instanceType: 't3.large', ...given });
function plan(given: Record<string, unknown> = {}, home: Volume = {}): InstancePlan {
  const ec2 = section(given);
  return {
    installation: 'here',
    spec: { workspaceId: 'w1', owner: 'ada', name: 'web', template: { ec2 } } as unknown as WorkspaceSpec,
    section: ec2,
    launch: { buildId: 'b1', serverUrl: 'https://cde.example.com', token: 'cde_agent_secret' },
    home: { VolumeId: 'vol-0123456789abcdef0', ...home },
    image: { id: 'ami-1', rootDevice: '/dev/xvda', rootGibibytes: 8 },
    subnet: { SubnetId: 'subnet-1', VpcId: 'vpc-1' } as Subnet,
    securityGroups: ['sg-1'],
    certificateAuthorities: null,
    graceSeconds: 10,
  };
}
const userDataOf = (data: string | undefined) => Buffer.from(data!, 'base64').toString();

test('AWS is told no token, and the metadata service needs session tokens and is one hop away', () => {
  const instance = workspaceInstance(plan(), []);
  expect(JSON.stringify(instance) + userDataOf(instance.UserData)).not.toContain('cde_agent_secret');
  expect(instance.MetadataOptions).toMatchObject({ HttpTokens: 'required', HttpPutResponseHopLimit: 1 });
});

test('only a home on which no agent has run may be formatted', () => {
  const mayFormat = (home?: Volume) =>
    /mayFormat[\\":]+(true|false)/.exec(userDataOf(workspaceInstance(plan({}, home), []).UserData))![1];
  expect(mayFormat()).toBe('true');
  expect(mayFormat({ Tags: [{ Key: tags.used, Value: '' }] })).toBe('true');
  expect(mayFormat({ Tags: [{ Key: tags.used, Value: 'true' }] })).toBe('false');
});

test('a repeated call is the same one, until an instance of the build has ended', () => {
  const token = (...earlier: string[]) => workspaceInstance(plan(), earlier).ClientToken;
  expect(token()).toBe(token());
  expect(token()!.length).toBeLessThanOrEqual(64);
  expect(token('i-1')).not.toBe(token());
  expect(token('i-1', 'i-2')).toBe(token('i-2', 'i-1'));
});

test('the root disk is as large as the template says, and never smaller than the image', () => {
  const size = (disk?: string) =>
    workspaceInstance(plan({ ...(disk && { disk }) }), []).BlockDeviceMappings![0]!.Ebs;
  expect(size()).toMatchObject({ VolumeSize: 8, Encrypted: true, DeleteOnTermination: true });
  expect(size('4Gi')).toMatchObject({ VolumeSize: 8 });
  expect(size('20Gi')).toMatchObject({ VolumeSize: 20 });
  expect([gibibytes('1Mi'), gibibytes('10Gi'), gibibytes('1.5Gi')]).toEqual([1, 10, 2]);
});

test('spot instances are terminated at their end; others stop, so that their reason can be read', () => {
  expect(workspaceInstance(plan(), []).InstanceInitiatedShutdownBehavior).toBe('stop');
  const spot = workspaceInstance(plan({ spot: true }), []);
  expect(spot.InstanceInitiatedShutdownBehavior).toBeUndefined();
  expect(spot.InstanceMarketOptions).toMatchObject({
    MarketType: 'spot',
    SpotOptions: { SpotInstanceType: 'one-time' },
  });
});

test('tags of the template are on instances and disks, and cannot replace those of cde', () => {
  const { TagSpecifications } = workspaceInstance(plan({ tags: { team: 'shop' } }), []);
  expect(TagSpecifications!.map(({ ResourceType }) => ResourceType)).toEqual(['instance', 'volume']);
  for (const each of TagSpecifications!) {
    expect(tagOf(each, 'team')).toBe('shop');
    expect(tagOf(each, tags.installation)).toBe('here');
  }
  expect(Ec2Section.safeParse({ image: 'a', instanceType: 'b', tags: { 'cde:role': 'home' } }).success).toBe(
    false,
  );
});

test('a kept instance is replaced if what it was made from has changed', () => {
  expect(planOf(section({ env: { A: '1' }, snapshots: { keep: 2 } }))).toBe(planOf(section()));
  expect(planOf(section({ image: 'ami-2' }))).not.toBe(planOf(section()));
});

test('what separates a workspace from others', () => {
  const instance: Instance = { Placement: { AvailabilityZone: 'eu-central-1a' } };
  expect(describeIsolation(section(), instance)).toBe(
    'Virtual machine on EC2 (t3.large, eu-central-1a), accepts no connections from the network; runs as user 1000, without capabilities and with no-new-privileges. Limits: processes 8192.',
  );
  expect(
    describeIsolation(
      section({ allowPrivilegeEscalation: true, spot: true, securityGroups: ['sg-1'] }),
      instance,
    ),
  ).toMatch(
    /\(t3.large, spot, .*its security groups say who can connect to it; its programs can become root inside/,
  );
});

test.each([
  ['Server.SpotInstanceTermination', '', 'preempted'],
  ['Server.ScheduledStop', '', 'node-drained'],
  ['Server.InternalError', '', 'node-lost'],
  ['Server.InsufficientInstanceCapacity', '', 'node-refused'],
  ['Client.UserInitiatedShutdown', '', 'removed'],
  ['Client.InstanceInitiatedShutdown', '', 'unknown'],
  [
    'Client.InstanceInitiatedShutdown',
    'x\ncde-agent ended: oom-kill killed KILL running\n[  OK  ] Power off',
    'out-of-memory',
  ],
  ['Client.InstanceInitiatedShutdown', 'cde-agent ended: exit-code exited 1 running', 'agent-exited'],
  ['Client.UserInitiatedShutdown', 'cde-agent ended: success exited 0 stopping', 'removed'],
])('an instance that ended by %s', (Code, console, cause) => {
  expect(explainEndOf({ StateReason: { Code } }, console)).toMatchObject({ cause });
});

const error = (name: string, status = 400) =>
  Object.assign(new Error('in its words'), { name, $fault: 'client', $metadata: { httpStatusCode: status } });

test.each([
  ['InsufficientInstanceCapacity', 'aws-no-capacity', 'system'],
  ['VcpuLimitExceeded', 'quota-exceeded', 'system'],
  ['VolumeLimitExceeded', 'quota-exceeded', 'system'],
  ['InstanceLimitExceeded', 'quota-exceeded', 'system'],
  ['UnauthorizedOperation', 'aws-not-authorized', 'system'],
  ['AuthFailure', 'aws-not-authorized', 'system'],
  ['InvalidAMIID.NotFound', 'image-not-found', 'user'],
  ['InvalidSubnetID.NotFound', 'aws-setting-invalid', 'user'],
  ['InvalidParameterValue', 'aws-setting-invalid', 'user'],
  ['Unsupported', 'instance-type-not-supported', 'user'],
  ['SomethingElse', 'aws-refused', 'system'],
])('%s is %s', (name, code, fault) => {
  expect(refusal(error(name))).toMatchObject({ code, fault, detail: `${name}: in its words` });
});

test('a rate limit and an outage are not for good', () => {
  expect(isThrottled(error('RequestLimitExceeded', 503))).toBe(true);
  expect(isUnreachable(error('RequestLimitExceeded', 503))).toBe(false);
  expect(isUnreachable(error('ServiceUnavailable', 503))).toBe(true);
  expect(isUnreachable(Object.assign(new Error('no'), { code: 'ECONNREFUSED' }))).toBe(true);
  expect(isUnreachable(error('InvalidAMIID.NotFound'))).toBe(false);
});
