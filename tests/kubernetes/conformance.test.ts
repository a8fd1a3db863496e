import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { testProviderContract } from '@cde/server/providers/conformance/conformance.ts';
import { makeKubernetesProvider } from '@cde/server/providers/kubernetes/provider.ts';
import { openTestCluster } from '@cde/server/providers/kubernetes/testing/cluster.ts';
import { quiet, testConnections } from '@cde/server/providers/kubernetes/testing.ts';
import type { Provider, WorkspaceSpec } from '@cde/server/providers/provider.ts';
import { parseTemplate } from '@cde/server/templates/parse.ts';
import { renderTemplate } from '@cde/server/templates/render.ts';
import { agentTestImage } from '../cluster/agent-image.ts';
import { images } from '../cluster/images.ts';
import { smallRequests } from './requests.ts';

const run = promisify(execFile);
const kubeconfig = process.env.CDE_TEST_KUBECONFIG ?? join(homedir(), '.cache/cde/cluster/kubeconfig');

/** Longer than a transition takes while three other files start pods on the same processors. */
const timeoutMs = 900_000;

function makeSpec(): WorkspaceSpec {
  const workspaceId = randomUUID();
  const name = `w${workspaceId.slice(0, 8)}`;
  const { template, faults } = parseTemplate({
    'template.yaml': `name: t\nprovider: kubernetes\nhome: { size: 1Gi }\nkubernetes: { image: "${images.debian}", pullPolicy: IfNotPresent, requests: ${JSON.stringify(smallRequests)} }\n`,
  });
  if (!template) throw new Error(JSON.stringify(faults));
  const workspace = { id: workspaceId, name, owner: 'ada' };
  const rendered = renderTemplate(template, {}, { workspace, owner: { name: 'Ada', email: '' } });
  if ('faults' in rendered) throw new Error(JSON.stringify(rendered.faults));
  return { workspaceId, owner: 'ada', name, template: rendered.ok };
}

testProviderContract(
  'kubernetes',
  async () => {
    const installation = `t${randomUUID().slice(0, 8)}`;
    const ours = `cde.dev/installation=${installation}`;
    const cluster = await openTestCluster();
    const agentImage = await agentTestImage();

    const podsOf = ({ workspaceId }: WorkspaceSpec) =>
      cluster.list({
        apiVersion: 'v1',
        kind: 'Pod',
        labels: `cde.dev/workspace=${workspaceId},app=workspace`,
      });
    async function execute(spec: WorkspaceSpec, script: string): Promise<string> {
      const [pod] = await podsOf(spec);
      if (!pod) throw new Error(`${spec.name} has no pod`);
      const { name, namespace } = pod.metadata;
      const target = ['-n', namespace!, 'exec', name, '-c', 'workspace'];
      return (await run('kubectl', ['--kubeconfig', kubeconfig, ...target, '--', 'sh', '-c', script])).stdout;
    }

    return {
      // Each with connections of its own, which have to list everything first, as those of another replica.
      makeProvider(): Provider {
        const { connections } = testConnections(undefined, installation);
        const refreshed = connections.refresh();
        const provider = makeKubernetesProvider({ connections, installation, agentImage, log: quiet });
        return {
          ...provider,
          async close() {
            await provider.close();
            await refreshed;
            await connections.close();
          },
        };
      },
      makeSpec,
      makeLaunch: (buildId) => ({ buildId, serverUrl: 'http://127.0.0.1:9', token: 'cde_agent_test' }),
      async writeHome(spec, name, text) {
        await execute(spec, `printf %s '${text}' > ~/${name}`);
      },
      async readHome(spec, name) {
        const found = await execute(spec, `[ ! -e ~/${name} ] || { printf =; cat ~/${name}; }`);
        return found === '' ? null : found.slice(1);
      },
      async killAgent(spec) {
        // The agent changes its title, but not its program.
        const isAgent = '[ "$(readlink $process/exe)" = /opt/cde/node ]';
        await execute(
          spec,
          `for process in /proc/[0-9]*; do ! ${isAgent} || kill -9 \${process#/proc/}; done`,
        );
      },
      async countAgents(spec) {
        const pods = await podsOf(spec);
        return pods.filter(({ status }) => status?.containerStatuses?.some(({ state }) => state?.running))
          .length;
      },
      async close() {
        // Their provisioner deletes the volumes when the claims are gone. Nothing waits for that.
        await cluster.discardVolumes(ours);
        for (const namespace of await cluster.list({ apiVersion: 'v1', kind: 'Namespace', labels: ours }))
          await cluster.removeObject(namespace);
        cluster.close();
      },
    };
  },
  // provider.test.ts tests a restore that is undone.
  { timeoutMs, isSlow: true },
);
