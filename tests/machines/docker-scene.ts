// biome-ignore-all lint/suspicious/noTemplateCurlyInString: for sh
import { randomUUID } from 'node:crypto';
import { dirname } from 'node:path';
import { freshBundle } from '@cde/agent/bundle.ts';
import type { ConformanceSubject } from '@cde/server/providers/conformance/conformance.ts';
import { type DockerProviderOptions, makeDockerProvider } from '@cde/server/providers/docker/provider.ts';
import type { WorkspaceSpec } from '@cde/server/providers/provider.ts';
import { parseTemplate } from '@cde/server/templates/parse.ts';
import { renderTemplate } from '@cde/server/templates/render.ts';
import { silentLog } from '@cde/tunnel/log.ts';
import { images } from '../cluster/images.ts';
import { type TestEngine, testEngine } from './docker-engine.ts';

/** `section`: further lines of the template's docker section. */
export function makeSpec(
  image: string = images.debian,
  section = '',
  pullPolicy: 'Never' | 'Always' | 'IfNotPresent' = 'Never',
): WorkspaceSpec {
  const workspaceId = randomUUID();
  const name = `w${workspaceId.slice(0, 8)}`;
  const { template, faults } = parseTemplate({
    'template.yaml': `name: t\nprovider: docker\ndocker:\n  image: "${image}"\n  pullPolicy: ${pullPolicy}\n${section}`,
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

/** Providers of one installation on an engine. `close` removes everything of it. */
export async function makeScene(engine: Pick<TestEngine, 'url' | 'docker'> = testEngine()) {
  const { url, docker } = engine;
  const installation = `t${randomUUID().slice(0, 8)}`;
  const folder = dirname(await freshBundle());
  return {
    docker,
    provider: (changes: Partial<DockerProviderOptions> = {}) =>
      makeDockerProvider({
        address: { url },
        installation,
        agent: { folder, node: process.execPath },
        gatewayFolder: null,
        // No server is there to listen to, so the agent has nothing to finish.
        graceSeconds: 3,
        log: silentLog,
        ...changes,
      }),
    inside: ({ workspaceId }: WorkspaceSpec, user: string, script: string) =>
      docker('exec', '--user', user, `cde-${workspaceId}`, 'sh', '-c', script),
    async close() {
      const ours = ['--quiet', '--filter', `label=dev.cde.installation=${installation}`];
      const remove = async (list: string[], remover: string[]) => {
        const found = (await docker(...list, ...ours)).split('\n').filter(Boolean);
        if (found.length > 0) await docker(...remover, ...found);
      };
      await remove(['ps', '--all'], ['rm', '--force']);
      await remove(['network', 'ls'], ['network', 'rm']);
      await remove(['volume', 'ls'], ['volume', 'rm']);
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
    await scene.inside(
      spec,
      '1000',
      'for process in /proc/[0-9]*; do [ "$(readlink $process/exe)" != /opt/cde/node ] || kill -9 ${process#/proc/}; done',
    );
  },
  async countAgents({ workspaceId }) {
    const found = await scene.docker('ps', '--quiet', '--filter', `label=dev.cde.workspace=${workspaceId}`);
    return found.split('\n').filter(Boolean).length;
  },
  close: () => scene.close(),
});
