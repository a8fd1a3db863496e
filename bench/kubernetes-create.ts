/**
 * From `create` to a running pod on Kubernetes. Baseline: `kubectl apply` and `kubectl wait` with the same objects, in
 * alternating rounds. Prints medians, the API calls per start, and the ratio. The images are already on the node.
 * Needs a cluster (`npm run kube:up`, or CDE_TEST_KUBECONFIG). Usage: node bench/kubernetes-create.ts [ROUNDS]
 */
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { renderNamespace } from '@cde/server/providers/kubernetes/objects/namespace.ts';
import { makeKubernetesProvider } from '@cde/server/providers/kubernetes/provider.ts';
import { quiet, testConnections } from '@cde/server/providers/kubernetes/testing.ts';
import type { RenderedTemplate } from '@cde/server/providers/provider.ts';
import { parseTemplate } from '@cde/server/templates/parse.ts';
import { renderTemplate } from '@cde/server/templates/render.ts';
import { agentTestImage } from '../tests/cluster/agent-image.ts';
import { images } from '../tests/cluster/images.ts';
import { median, ms } from './harness.ts';

const rounds = Number(process.argv[2] ?? 9);
const run = promisify(execFile);
const kubeconfig = process.env.CDE_TEST_KUBECONFIG ?? join(homedir(), '.cache/cde/cluster/kubeconfig');
const kubectl = (...args: string[]) => run('kubectl', ['--kubeconfig', kubeconfig, ...args]);

const agentImage = await agentTestImage();
const { connections, installation } = testConnections();
const provider = makeKubernetesProvider({ connections, installation, agentImage, log: quiet });
await connections.refresh();
const connection = connections.get('one')!;
while (!connection.view.synced) await new Promise((resolve) => setTimeout(resolve, 50));

function plan(): { workspaceId: string; owner: string; name: string; template: RenderedTemplate } {
  const { template } = parseTemplate({
    'template.yaml': `name: bench\nprovider: kubernetes\nhome: { size: 1Gi }\nkubernetes: { image: "${images.debian}", pullPolicy: IfNotPresent }\n`,
  });
  const workspaceId = randomUUID();
  const name = `b${workspaceId.slice(0, 8)}`;
  const rendered = renderTemplate(
    template!,
    {},
    { workspace: { id: workspaceId, name, owner: 'bench' }, owner: { name: 'Bench', email: '' } },
  );
  if ('faults' in rendered) throw new Error(JSON.stringify(rendered.faults));
  return { workspaceId, owner: 'bench', name, template: rendered.ok };
}
const launch = () => ({ buildId: randomUUID(), serverUrl: 'http://127.0.0.1:9', token: 'cde_agent_bench' });

/** Drives the provider like the reconciler: one step, then the next when something changed. */
async function ours(): Promise<{ took: number; calls: number }> {
  const spec = plan();
  const started = launch();
  let state = {};
  let wake = () => {};
  provider.onChange((id) => id === spec.workspaceId && wake());
  const before = connection.client.calls();
  const began = performance.now();
  for (;;) {
    const woken = new Promise<void>((resolve) => {
      wake = resolve;
    });
    const move = await provider.start(spec, started, state, { log: () => {} });
    state = move.state;
    if (move.kind === 'failed') throw new Error(move.error.message);
    if (move.kind === 'done') break;
    await Promise.race([woken, new Promise((resolve) => setTimeout(resolve, move.retryAfterMs))]);
  }
  const result = { took: performance.now() - began, calls: connection.client.calls() - before };
  await discard(spec.workspaceId, state);
  return result;
}

async function discard(workspaceId: string, from: object): Promise<void> {
  let state = from as Record<string, unknown>;
  for (;;) {
    const move = await provider.remove(workspaceId, state, 'discard', { log: () => {} });
    state = move.state;
    if (move.kind !== 'pending') return;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

async function theirs(folder: string): Promise<number> {
  const spec = plan();
  const namespace = `cde-bench-${spec.name}`;
  // Labelled as another installation, so that our watches ignore it.
  const objects = renderNamespace(spec, launch(), { namespace, installation: 'none', agentImage });
  const file = join(folder, `${spec.name}.json`);
  await writeFile(file, JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects }));
  const began = performance.now();
  await kubectl('apply', '--server-side', '-f', file);
  for (;;) {
    try {
      // kubectl wait fails at once if the pod does not exist yet.
      await kubectl('-n', namespace, 'wait', '--for=condition=Ready', 'pod/workspace-0', '--timeout=60s');
      break;
    } catch (error) {
      if (!String(error).includes('NotFound')) throw error;
    }
  }
  const took = performance.now() - began;
  await kubectl('delete', 'namespace', namespace);
  return took;
}

const folder = await mkdtemp(join(tmpdir(), 'cde-bench-'));
const mine: { took: number; calls: number }[] = [];
const kube: number[] = [];
try {
  await ours();
  await theirs(folder);
  for (let round = 0; round < rounds; round++) {
    mine.push(await ours());
    kube.push(await theirs(folder));
  }
} finally {
  await provider.close();
  await connections.close();
  await rm(folder, { recursive: true, force: true });
}
const took = median(mine.map((each) => each.took));
const base = median(kube);
console.log(
  `cde            ${ms(took)} to a running pod, ${median(mine.map(({ calls }) => calls))} API calls`,
);
console.log(`kubectl        ${ms(base)} (apply --server-side, wait --for=condition=Ready)`);
console.log(`ratio          ${(took / base).toFixed(2)} of kubectl's time, ${rounds} alternating rounds`);
