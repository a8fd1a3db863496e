import { spawnSync } from 'node:child_process';
import { GceSection } from '@cde/api/template-cloud.ts';
import { expect, test } from 'vitest';
import type { WorkspaceSpec } from '../provider.ts';
import { bootPlanOf } from '../vm/boot-data.ts';
import type { LaunchPlan } from '../vm/cloud.ts';
import { startupScript } from '../vm/user-data.ts';
import { GceError, isBusy, isThrottled, isUnreachable } from './client.ts';
import { explainEndOf } from './ends.ts';
import { homePaths, workspaceInstance } from './instance.ts';
import { fromLabels, objectName, toLabels, withLabels } from './names.ts';
import { refusal } from './refusal.ts';
import type { Image } from './resources.ts';

const section = (given: Record<string, unknown> = {}) =>
  GceSection.parse({ image: 'debian-12', machineType: 'e2-medium', ...given });

function plan(given: Record<string, unknown> = {}, earlier: string[] = []): LaunchPlan {
  const gce = section(given);
  const spec = {
    workspaceId: 'w1',
    owner: 'ada',
    name: 'web',
    template: { gce },
  } as unknown as WorkspaceSpec;
  const launch = { buildId: 'b1', serverUrl: 'https://cde.example.com', token: 'cde_agent_secret' };
  const home: LaunchPlan['home'] = {
    id: 'europe-west3-a/home-1',
    zone: 'europe-west3-a',
    gibibytes: 20,
    state: 'ready',
    attachedTo: null,
    createdAt: null,
    labels: {},
  };
  const boot = bootPlanOf({
    ...{ spec, section: gce, launch, home, certificateAuthorities: null, graceSeconds: 10, metadata: false },
    disk: { serial: '', paths: homePaths },
  });
  return {
    spec,
    launch,
    home,
    boot,
    labels: { installation: 'here', owner: 'ada', role: 'instance' },
    earlier,
  };
}
const instance = (given: Record<string, unknown> = {}, earlier: string[] = []) =>
  workspaceInstance(plan(given, earlier), {
    installation: 'here',
    section: section(given),
    image: { name: 'debian', selfLink: 'https://images/debian', diskSizeGb: '10' } as Image,
    network: { network: 'projects/p/global/networks/default' },
  });

test('Google is told no token, and the machine has no service account, address or keys of the project', () => {
  const made = instance();
  expect(JSON.stringify(made)).not.toContain('cde_agent_secret');
  expect(made).toMatchObject({
    serviceAccounts: [],
    networkInterfaces: [{ accessConfigs: [] }],
    shieldedInstanceConfig: { enableSecureBoot: true },
    scheduling: { automaticRestart: false },
  });
  expect(made.metadata.items).toContainEqual({ key: 'block-project-ssh-keys', value: 'TRUE' });
  expect(instance({ shielded: false })).not.toHaveProperty('shieldedInstanceConfig');
  expect(instance({ publicAddress: true, serviceAccount: 'dev@p' })).toMatchObject({
    serviceAccounts: [{ email: 'dev@p' }],
    networkInterfaces: [{ accessConfigs: [{ type: 'ONE_TO_ONE_NAT' }] }],
  });
});

test('a repeated call is the same one, until a machine of the build has ended', () => {
  const name = (...earlier: string[]) => instance({}, earlier).name;
  expect(name()).toBe(name());
  expect(name()).toMatch(/^cde-ada-web-[0-9a-f]{14}$/);
  expect(name('m1')).not.toBe(name());
  expect(name('m1', 'm2')).toBe(name('m2', 'm1'));
});

test('a spot machine stays when it is reclaimed, so that its reason can be read', () => {
  expect(instance({ spot: true }).scheduling).toMatchObject({
    provisioningModel: 'SPOT',
    instanceTerminationAction: 'STOP',
  });
  expect(instance().scheduling).not.toHaveProperty('provisioningModel');
});

test('the boot disk is as large as the template says, and never smaller than the image', () => {
  const size = (disk?: string) => instance({ ...(disk && { disk }) }).disks[0]!.initializeParams.diskSizeGb;
  expect([size(), size('4Gi'), size('20Gi')]).toEqual(['10', '10', '20']);
});

test('labels of the template cannot replace those of cde, and machines of other rules have no rule of cde', () => {
  expect(instance({ labels: { team: 'shop' } }).labels).toMatchObject({
    team: 'shop',
    'cde-installation': 'here',
    'cde-role': 'instance',
  });
  expect(instance({ labels: { team: 'shop' } }).disks[0]!.initializeParams.labels).toMatchObject({
    'cde-role': 'root',
  });
  expect(GceSection.safeParse({ ...section(), labels: { 'cde-role': 'home' } }).success).toBe(false);
  expect(instance().tags.items).toEqual(['cde-here']);
  expect(instance({ networkTags: ['mine'] }).tags.items).toEqual(['mine']);
});

test('labels survive what Google allows in them', () => {
  const retainedAt = '2026-11-30T20:00:00.123Z';
  const labels = { workspace: 'w1', retainedAt, from: 'europe-west3-a/cde-ada-web', used: 'true' };
  const encoded = toLabels(labels);
  for (const value of Object.values(encoded)) expect(value).toMatch(/^[a-z0-9_-]{0,63}$/);
  expect(fromLabels(encoded)).toEqual(labels);
  expect(toLabels({ retainedAt: '', owner: 'Ada.Lovelace' })).toEqual({
    'cde-retained-at': '',
    'cde-owner': 'ada-lovelace',
  });
  expect(fromLabels({ 'cde-retained-at': '' })).toEqual({});
  expect(withLabels({ installation: 'here', role: 'home' })).toBe(
    '(labels.cde-installation = "here") (labels.cde-role = "home")',
  );
});

test('names are valid, however long those of owners and workspaces are', () => {
  const name = objectName({ owner: `Ada.${'a'.repeat(80)}`, name: 'w'.repeat(80) }, 'home', 'key');
  expect(name).toMatch(/^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$/);
});

test('the startup script is Python, runs once a boot, and has the plan', () => {
  const { boot } = plan();
  const script = startupScript({ ...boot, home: "/home/ada's \\ \u2028 ☁" });
  expect(script).toMatch(/^#!\/usr\/bin\/env python3\n/);
  expect(script).toContain('/run/cde/boot.py');
  // Everything up to the installer is run, with what it would get printed.
  const upTo = script.slice(0, script.indexOf('import os, subprocess'));
  const run = spawnSync('python3', ['-c', `${upTo}\nsys.stdout.buffer.write(sys.argv[2].encode())`]);
  if (run.error) return;
  expect(run.stderr.toString()).toBe('');
  expect(JSON.parse(run.stdout.toString())).toEqual({ ...boot, home: "/home/ada's \\ \u2028 ☁" });
});

const ended = (...types: string[]) => types.map((operationType) => ({ name: '', operationType }) as never);
test.each([
  [ended('compute.instances.preempted', 'insert'), '', 'preempted'],
  [ended('compute.instances.hostError'), '', 'node-lost'],
  [ended('compute.instances.terminateOnHostMaintenance'), '', 'node-drained'],
  [ended('setLabels', 'compute.instances.guestTerminate'), '', 'unknown'],
  [
    ended('compute.instances.guestTerminate'),
    'cde-agent ended: oom-kill killed KILL running',
    'out-of-memory',
  ],
  [ended('stop', 'insert'), '', 'removed'],
  [ended('stop'), 'cde-agent ended: success exited 0 stopping', 'removed'],
  [[], '', 'unknown'],
])('a machine that ended with %j', (operations, console, cause) => {
  expect(explainEndOf(operations, console)).toMatchObject({ cause });
});

const error = (status: number, reason: string, message = 'in its words') =>
  new GceError(status, reason, message);

test.each([
  [error(503, 'ZONE_RESOURCE_POOL_EXHAUSTED'), 'gcp-no-capacity', 'system'],
  [error(503, 'ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS'), 'gcp-no-capacity', 'system'],
  [error(403, 'QUOTA_EXCEEDED'), 'quota-exceeded', 'system'],
  [error(403, 'quotaExceeded'), 'quota-exceeded', 'system'],
  [error(403, 'forbidden', "Required 'compute.instances.create' permission"), 'gcp-not-authorized', 'system'],
  [error(401, 'authError'), 'gcp-not-authorized', 'system'],
  [error(403, 'accessNotConfigured'), 'gcp-not-authorized', 'system'],
  [error(400, 'invalid', 'Machine type e2-medium is not available'), 'instance-type-not-supported', 'user'],
  [error(404, 'notFound', 'networks/none'), 'gcp-setting-invalid', 'user'],
  [error(400, 'invalid'), 'gcp-setting-invalid', 'user'],
  [error(409, 'somethingElse'), 'gcp-refused', 'system'],
])('%s is %s', (given, code, fault) => {
  expect(refusal(given)).toMatchObject({ code, fault, detail: `${given.reason}: ${given.message}` });
});

test('a rate limit, an outage and a change at the same time are not for good', () => {
  expect(isThrottled(error(403, 'rateLimitExceeded'))).toBe(true);
  expect(isThrottled(error(429, ''))).toBe(true);
  expect(isThrottled(error(403, 'quotaExceeded'))).toBe(false);
  expect(isUnreachable(error(503, 'backendError'))).toBe(true);
  expect(isUnreachable(error(503, 'ZONE_RESOURCE_POOL_EXHAUSTED'))).toBe(false);
  expect(isUnreachable(Object.assign(new Error('no'), { code: 'ECONNREFUSED' }))).toBe(true);
  expect(isBusy(error(412, 'conditionNotMet'))).toBe(true);
  expect(isBusy(error(400, 'invalid'))).toBe(false);
});
