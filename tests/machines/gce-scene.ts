import { randomUUID } from 'node:crypto';
import { type GceAddress, makeGceClient } from '@cde/server/providers/gce/client.ts';
import { type GceProviderOptions, makeGceProvider } from '@cde/server/providers/gce/provider.ts';
import type { WorkspaceSpec } from '@cde/server/providers/provider.ts';
import { parseTemplate } from '@cde/server/templates/parse.ts';
import { renderTemplate } from '@cde/server/templates/render.ts';
import { silentLog } from '@cde/tunnel/log.ts';
import { makeFakeCompute } from './gce-fake-compute.ts';
import { makeGuests } from './gce-guests.ts';

/**
 * With CDE_TEST_GCE_PROJECT, the conformance suite runs on Google: with the credentials that Google's libraries find, in the
 * region CDE_TEST_GCE_REGION. Its machines cost money, and it deletes what it creates.
 */
export const realProject = process.env.CDE_TEST_GCE_PROJECT;
const realRegion = process.env.CDE_TEST_GCE_REGION ?? 'europe-west3';

/** `section`: further lines of the template's gce section; `file`: of the template. */
export function makeSpec(section = '', file = ''): WorkspaceSpec {
  const workspaceId = randomUUID();
  const name = `w${workspaceId.slice(0, 8)}`;
  const machine = '  image: debian-12\n  imageProject: debian-cloud\n  machineType: e2-medium\n';
  const { template, faults } = parseTemplate({
    'template.yaml': `name: t\nprovider: gce\n${file}gce:\n${machine}${section}`,
  });
  if (!template) throw new Error(JSON.stringify(faults));
  const workspace = { id: workspaceId, name, owner: 'ada' };
  const rendered = renderTemplate(template, {}, { workspace, owner: { name: 'Ada', email: '' } });
  if ('faults' in rendered) throw new Error(JSON.stringify(rendered.faults));
  return { workspaceId, owner: 'ada', name, template: rendered.ok };
}

export const launchOf = (buildId: string, workspaceId = '') => ({
  buildId: `${buildId}${workspaceId && `-${workspaceId}`}`,
  serverUrl: 'http://127.0.0.1:9',
  token: 'cde_agent_test',
});

const newInstallation = () => `t${randomUUID().slice(0, 8)}`;

/** Providers of one installation on a fake of Compute Engine, with guests that only pretend. */
export async function makeFakeScene() {
  const installation = newInstallation();
  const project = 'acme-dev';
  const region = 'europe-west3';
  const compute = makeFakeCompute(project, region);
  const direct = await compute.connect();
  const own = await compute.connect();
  const addressOf = ({ url }: { url: string }): GceAddress => ({
    project,
    region,
    endpoint: url,
    token: async () => 'fake',
  });
  const client = await makeGceClient(addressOf(direct));
  const guests = makeGuests({
    client,
    installation,
    pollMs: 20,
    async powerOff(zone, name, console) {
      compute.write(zone, name, console);
      compute.end(zone, name, 'guestTerminate');
    },
  });
  return {
    installation,
    compute,
    guests,
    connection: own,
    addressOf,
    makeSpec,
    provider: (changes: Partial<GceProviderOptions> = {}) =>
      makeGceProvider({
        address: addressOf(own),
        installation,
        hasRegistered: guests.hasRegistered,
        retryMs: 20,
        pollMs: 200,
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

/** The same on Google. A guest cannot shut down of itself here, so one that is killed is stopped. */
export async function makeRealScene() {
  const installation = newInstallation();
  const address = { project: realProject!, region: realRegion };
  const client = await makeGceClient(address);
  const guests = makeGuests({
    client,
    installation,
    pollMs: 3_000,
    powerOff: async (zone, name) => void (await client.post(`/zones/${zone}/instances/${name}/stop`)),
  });
  const provider = () =>
    makeGceProvider({ address, installation, hasRegistered: guests.hasRegistered, log: silentLog });
  return {
    guests,
    makeSpec,
    provider,
    async close() {
      await guests.close();
      const last = provider();
      const objects = await last.objects!.list();
      for (const each of objects.filter(({ kind }) => kind !== 'home')) await last.objects!.remove(each);
      for (const home of objects.filter(({ kind }) => kind === 'home'))
        await last.objects!.adopt(home, home.workspaceId ?? 'unknown', new Date(0));
      await last.purgeHomes({});
      await last.close();
    },
  };
}

/** What the suites of all providers need. */
export const conformanceSubject = (scene: Pick<FakeScene, 'guests' | 'close' | 'makeSpec'>) => ({
  makeSpec: () => scene.makeSpec(),
  makeLaunch: (build: string) => launchOf(build),
  async writeHome({ workspaceId }: WorkspaceSpec, name: string, text: string) {
    (await scene.guests.homeOf(workspaceId)).set(name, text);
  },
  readHome: async ({ workspaceId }: WorkspaceSpec, name: string) =>
    (await scene.guests.homeOf(workspaceId)).get(name) ?? null,
  killAgent: ({ workspaceId }: WorkspaceSpec) => scene.guests.killAgent(workspaceId),
  countAgents: async ({ workspaceId }: WorkspaceSpec) => (await scene.guests.runningOf(workspaceId)).length,
  close: () => scene.close(),
});
