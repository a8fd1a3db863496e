import { randomInt, randomUUID } from 'node:crypto';
import { type Ec2ProviderOptions, makeEc2Provider } from '@cde/server/providers/ec2/provider.ts';
import type { WorkspaceSpec } from '@cde/server/providers/provider.ts';
import { parseTemplate } from '@cde/server/templates/parse.ts';
import { renderTemplate } from '@cde/server/templates/render.ts';
import { silentLog } from '@cde/tunnel/log.ts';
import { faultyEc2, makeFakeGuests, makeMissingParts } from './ec2-fake-guests.ts';
import { testMoto } from './moto.ts';

process.env.AWS_ACCESS_KEY_ID ??= 'test';
process.env.AWS_SECRET_ACCESS_KEY ??= 'test';

/** `section`: further lines of the template's ec2 section; `file`: of the template. */
export function makeSpec(image: string, section = '', file = ''): WorkspaceSpec {
  const workspaceId = randomUUID();
  const name = `w${workspaceId.slice(0, 8)}`;
  const { template, faults } = parseTemplate({
    'template.yaml': `name: t\nprovider: ec2\n${file}ec2:\n  image: "${image}"\n  instanceType: t3.medium\n${section}`,
  });
  if (!template) throw new Error(JSON.stringify(faults));
  const workspace = { id: workspaceId, name, owner: 'ada' };
  const rendered = renderTemplate(template, {}, { workspace, owner: { name: 'Ada', email: '' } });
  if ('faults' in rendered) throw new Error(JSON.stringify(rendered.faults));
  return { workspaceId, owner: 'ada', name, template: rendered.ok };
}

/** Builds of all scenes, because guests are told apart by them. */
export const launchOf = (
  buildId: string,
  { workspaceId }: { workspaceId: string } = { workspaceId: '' },
) => ({
  buildId: `${buildId}${workspaceId && `-${workspaceId}`}`,
  serverUrl: 'http://127.0.0.1:9',
  token: 'cde_agent_test',
});

/** Providers of one installation on moto, with guests that only pretend. */
export async function makeFakeScene() {
  const installation = `t${randomUUID().slice(0, 8)}`;
  const account = { url: testMoto(), account: String(randomInt(1e11, 1e12)) };
  const direct = await faultyEc2(account);
  const guests = makeFakeGuests(direct.url, installation);
  const parts = makeMissingParts(guests);
  const own = await faultyEc2(account, parts);
  const architecture = process.arch === 'arm64' ? 'arm64' : 'x86_64';
  const register = async (name: string) =>
    (
      await guests.ec2.registerImage({
        Name: `${installation}-${name}`,
        Architecture: architecture,
        RootDeviceName: '/dev/xvda',
      })
    ).ImageId!;
  const image = await register('debian');
  const newerImage = await register('debian-newer');
  return {
    installation,
    guests,
    ec2: guests.ec2,
    connection: own,
    image,
    newerImage,
    connect: () => faultyEc2(account, parts),
    makeSpec: (section = '', file = '') => makeSpec(image, section, file),
    provider: (changes: Partial<Ec2ProviderOptions> = {}) =>
      makeEc2Provider({
        address: { region: 'eu-central-1', endpoint: own.url },
        installation,
        hasRegistered: guests.hasRegistered,
        retryMs: 100,
        pollMs: 1000,
        log: silentLog,
        ...changes,
      }),
    async close() {
      await guests.close();
      await own.close();
      await direct.close();
    },
  };
}
export type FakeScene = Awaited<ReturnType<typeof makeFakeScene>>;

/** What the suites of all providers need. */
export const conformanceSubject = (scene: FakeScene) => ({
  makeSpec: () => scene.makeSpec(),
  makeLaunch: launchOf,
  async writeHome({ workspaceId }: WorkspaceSpec, name: string, text: string) {
    (await scene.guests.homeOf(workspaceId)).set(name, text);
  },
  readHome: async ({ workspaceId }: WorkspaceSpec, name: string) =>
    (await scene.guests.homeOf(workspaceId)).get(name) ?? null,
  killAgent: ({ workspaceId }: WorkspaceSpec) => scene.guests.killAgent(workspaceId),
  countAgents: async ({ workspaceId }: WorkspaceSpec) => (await scene.guests.runningOf(workspaceId)).length,
  close: () => scene.close(),
});
