import { randomUUID } from 'node:crypto';
import { dirname, join } from 'node:path';
import { freshBundle } from '@cde/agent/bundle.ts';
import type { ConformanceSubject } from '@cde/server/providers/conformance/conformance.ts';
import { type IncusProviderOptions, makeIncusProvider } from '@cde/server/providers/incus/provider.ts';
import type { WorkspaceSpec } from '@cde/server/providers/provider.ts';
import { parseTemplate } from '@cde/server/templates/parse.ts';
import { renderTemplate } from '@cde/server/templates/render.ts';
import { silentLog } from '@cde/tunnel/log.ts';
import { testIncus } from './incus-engine.ts';
import { incusImages } from './incus-image.ts';

/** `section`: further lines of the template's incus section; `file`: of the template. */
export function makeSpec(image: string = incusImages.debian, section = '', file = ''): WorkspaceSpec {
  const workspaceId = randomUUID();
  const name = `w${workspaceId.slice(0, 8)}`;
  const { template, faults } = parseTemplate({
    'template.yaml': `name: t\nprovider: incus\n${file}incus:\n  image: "${image}"\n${section}`,
  });
  if (!template) throw new Error(JSON.stringify(faults));
  const workspace = { id: workspaceId, name, owner: 'ada' };
  const rendered = renderTemplate(template, {}, { workspace, owner: { name: 'Ada', email: '' } });
  if ('faults' in rendered) throw new Error(JSON.stringify(rendered.faults));
  return { workspaceId, owner: 'ada', name, template: rendered.ok };
}

export const launchOf = (buildId: string) => ({
  buildId,
  serverUrl: 'http://127.0.0.1:9',
  token: 'cde_agent_test',
});

interface Found {
  name: string;
  project: string;
  status: string;
  type: string;
  config: Record<string, string>;
}

/** Providers of one installation on the server of the tests. `close` removes everything of it, but the agent's volume. */
export async function makeScene() {
  const { folder, incus } = testIncus()!;
  const installation = `t${randomUUID().slice(0, 8)}`;
  const bundle = dirname(await freshBundle());
  const address = { url: `unix://${join(folder, 'unix.socket')}` };
  const list = async (url: string) => {
    const separator = url.includes('?') ? '&' : '?';
    const all = await incus('query', `${url}${separator}recursion=1&all-projects=true`);
    return (JSON.parse(all) as Found[]).filter(
      ({ config }) => config['user.cde.installation'] === installation,
    );
  };
  return {
    incus,
    installation,
    agentVolumes: async (project: string) =>
      (
        await incus(
          'storage',
          'volume',
          'list',
          'default',
          '--project',
          project,
          '--format',
          'csv',
          '--columns',
          'n',
        )
      )
        .split('\n')
        .filter((name) => name.startsWith('cde-agent-')),
    instances: () => list('/1.0/instances'),
    homes: async () =>
      (await list('/1.0/storage-pools/default/volumes/custom')).filter(
        ({ config }) => config['user.cde.role'] === 'home',
      ),
    provider: (changes: Partial<IncusProviderOptions> = {}) =>
      makeIncusProvider({
        address,
        installation,
        agent: { folder: bundle, node: process.execPath },
        gatewayFolder: null,
        // No server is there to listen to, so the agent has nothing to finish.
        graceSeconds: 3,
        log: silentLog,
        ...changes,
      }),
    inside: ({ workspaceId, template }: WorkspaceSpec, user: string, script: string) =>
      incus(
        ...['exec', `cde-${workspaceId}`, '--project', template.incus!.project, '--user', user],
        ...['--', 'sh', '-c', script],
      ),
    async close() {
      for (const { name, project } of await list('/1.0/instances'))
        await incus('delete', '--force', '--project', project, name);
      for (const { name, project } of await list('/1.0/storage-pools/default/volumes/custom'))
        if (name.startsWith('cde-home-'))
          await incus('storage', 'volume', 'delete', 'default', name, '--project', project);
    },
  };
}
export type Scene = Awaited<ReturnType<typeof makeScene>>;

/** The scene as the suites of the provider contract need it, without the providers. */
export const conformanceSubject = (scene: Scene): Omit<ConformanceSubject, 'makeProvider'> => ({
  makeSpec: () => makeSpec(),
  makeLaunch: launchOf,
  async writeHome(spec, name, text) {
    await scene.inside(spec, '1000', `printf %s '${text}' > /home/ada/${name}`);
  },
  async readHome(spec, name) {
    const path = `/home/ada/${name}`;
    const found = await scene.inside(spec, '1000', `[ ! -e ${path} ] || { printf =; cat ${path}; }`);
    return found === '' ? null : found.slice(1);
  },
  async killAgent(spec) {
    await scene.inside(spec, '0', 'systemctl kill --kill-who=main --signal=KILL cde-agent');
  },
  async countAgents({ workspaceId }) {
    const found = await scene.instances();
    return found.filter(({ name, status }) => name === `cde-${workspaceId}` && status === 'Running').length;
  },
  close: () => scene.close(),
});
