import type { Subnet } from '@aws-sdk/client-ec2';
import { Ec2Section } from '@cde/api/template-cloud.ts';
import { expect, test } from 'vitest';
import type { WorkspaceSpec } from '../provider.ts';
import { bootPlanOf, planOf } from '../vm/boot-data.ts';
import type { LaunchPlan } from '../vm/cloud.ts';
import { isThrottled, isUnreachable } from './client.ts';
import { explainEndOf } from './ends.ts';
import { workspaceInstance } from './instance.ts';
import { tagOf, tags } from './names.ts';
import { refusal } from './refusal.ts';

const section = (given: Record<string, unknown> = {}) =>
  Ec2Section.parse({ image: 'ami-1', instanceType: 't3.large', ...given });

function instance(given: Record<string, unknown> = {}, earlier: string[] = []) {
  const ec2 = section(given);
  const spec = {
    workspaceId: 'w1',
    owner: 'ada',
    name: 'web',
    template: { ec2 },
  } as unknown as WorkspaceSpec;
  const launch = { buildId: 'b1', serverUrl: 'https://cde.example.com', token: 'cde_agent_secret' };
  const home: LaunchPlan['home'] = {
    id: 'vol-0123456789abcdef0',
    zone: 'eu-central-1a',
    gibibytes: 20,
    state: 'ready',
    attachedTo: null,
    createdAt: null,
    labels: {},
  };
  const boot = bootPlanOf({
    ...{ spec, section: ec2, launch, home, certificateAuthorities: null, graceSeconds: 10 },
    disk: { serial: 'vol0123456789abcdef0', paths: [] },
    metadata: true,
  });
  const labels = { installation: 'here', owner: 'ada', name: 'web', workspace: 'w1', build: 'b1' };
  return workspaceInstance(
    { spec, launch, home, boot, labels, earlier },
    {
      installation: 'here',
      section: ec2,
      image: { id: 'ami-1', rootDevice: '/dev/xvda', rootGibibytes: 8 },
      subnet: { SubnetId: 'subnet-1', VpcId: 'vpc-1' } as Subnet,
      securityGroups: ['sg-1'],
    },
  );
}
const userDataOf = (data: string | undefined) => Buffer.from(data!, 'base64').toString();

test('AWS is told no token, and the metadata service needs session tokens and is one hop away', () => {
  const made = instance();
  expect(JSON.stringify(made) + userDataOf(made.UserData)).not.toContain('cde_agent_secret');
  expect(made.MetadataOptions).toMatchObject({ HttpTokens: 'required', HttpPutResponseHopLimit: 1 });
});

test('a repeated call is the same one, until an instance of the build has ended', () => {
  const token = (...earlier: string[]) => instance({}, earlier).ClientToken;
  expect(token()).toBe(token());
  expect(token()!.length).toBeLessThanOrEqual(64);
  expect(token('i-1')).not.toBe(token());
  expect(token('i-1', 'i-2')).toBe(token('i-2', 'i-1'));
});

test('the root disk is as large as the template says, and never smaller than the image', () => {
  const size = (disk?: string) => instance({ ...(disk && { disk }) }).BlockDeviceMappings![0]!.Ebs;
  expect(size()).toMatchObject({ VolumeSize: 8, Encrypted: true, DeleteOnTermination: true });
  expect(size('4Gi')).toMatchObject({ VolumeSize: 8 });
  expect(size('20Gi')).toMatchObject({ VolumeSize: 20 });
});

test('spot instances are terminated at their end; others stop, so that their reason can be read', () => {
  expect(instance().InstanceInitiatedShutdownBehavior).toBe('stop');
  const spot = instance({ spot: true });
  expect(spot.InstanceInitiatedShutdownBehavior).toBeUndefined();
  expect(spot.InstanceMarketOptions).toMatchObject({
    MarketType: 'spot',
    SpotOptions: { SpotInstanceType: 'one-time' },
  });
});

test('tags of the template are on instances and disks, and cannot replace those of cde', () => {
  const { TagSpecifications } = instance({ tags: { team: 'shop' } });
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
  expect(explainEndOf(Code, console)).toMatchObject({ cause });
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
