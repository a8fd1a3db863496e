/**
 * The baseline: applies the same manifests with plain client calls, `concurrency` namespaces at a time, one object after
 * the other. The objects are labelled as another installation, so that the server's watches ignore them. Controlled by
 * IPC: `{create: N}` applies and waits until all pods run, `{stop: true}` scales to zero and waits until they are gone,
 * and `{remove: true}` deletes the namespaces. Each is answered with Durations.
 */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { KubeObject } from '@cde/server/providers/kubernetes/api/client.ts';
import { makeKubeClient } from '@cde/server/providers/kubernetes/api/kube-client.ts';
import { startReflector } from '@cde/server/providers/kubernetes/api/reflector.ts';
import { renderNamespace } from '@cde/server/providers/kubernetes/objects/namespace.ts';
import { parseTemplate } from '@cde/server/templates/parse.ts';
import { renderTemplate } from '@cde/server/templates/render.ts';
import { templateOf } from './template.ts';

export interface Durations {
  count: number;
  calls: number;
  /** Until every call was answered. */
  calledMs: number;
  /** Until the pods reached their goal. */
  wallMs: number;
  cpuMs: number;
}

const [kubeconfig, nodes, concurrencyText] = process.argv.slice(2) as [string, string, string];
const concurrency = Number(concurrencyText);
const installation = `${nodes}-plain`;
const client = await makeKubeClient({
  name: 'plain',
  credentials: { kind: 'kubeconfig', text: readFileSync(kubeconfig, 'utf8') },
});
const { template, faults } = parseTemplate({ 'template.yaml': templateOf('plain', nodes) });
if (!template) throw new Error(JSON.stringify(faults));

const namespaces: string[] = [];
const pods = new Map<string, boolean>();
let wake = () => {};
function seen(pod: KubeObject, gone: boolean): void {
  const { phase } = (pod.status ?? {}) as { phase?: string };
  if (gone) pods.delete(pod.metadata.namespace!);
  else pods.set(pod.metadata.namespace!, phase === 'Running');
  wake();
}
startReflector(
  client,
  { apiVersion: 'v1', kind: 'Pod', labels: `cde.dev/installation=${installation}` },
  {
    onList: (items) => {
      for (const pod of items) seen(pod, false);
    },
    onObject: (type, pod) => seen(pod, type === 'DELETED'),
    onState: () => {},
  },
);
async function wait(isDone: () => boolean): Promise<void> {
  while (!isDone())
    await new Promise<void>((resolve) => {
      wake = resolve;
    });
}

function objectsOf(name: string): KubeObject[] {
  const workspaceId = randomUUID();
  const rendered = renderTemplate(
    template!,
    {},
    { workspace: { id: workspaceId, name, owner: 'plain' }, owner: { name: 'Plain', email: '' } },
  );
  if ('faults' in rendered) throw new Error(JSON.stringify(rendered.faults));
  return renderNamespace(
    { workspaceId, owner: 'plain', name, template: rendered.ok },
    { buildId: randomUUID(), serverUrl: 'http://127.0.0.1:9', token: 'cde_agent_bench' },
    { namespace: name, installation, agentImage: 'nothing.runs/here:1' },
  );
}

/** Runs `work` for each name, `concurrency` at a time. */
async function each(names: readonly string[], work: (name: string) => Promise<unknown>): Promise<void> {
  const left = [...names];
  await Promise.all(
    Array.from({ length: concurrency }, async () => {
      for (let name = left.shift(); name !== undefined; name = left.shift()) await work(name);
    }),
  );
}

async function timed(count: number, work: () => Promise<void>, isDone: () => boolean): Promise<Durations> {
  const cpu = process.cpuUsage();
  const calls = client.calls();
  const began = performance.now();
  await work();
  const calledMs = performance.now() - began;
  await wait(isDone);
  const { user, system } = process.cpuUsage(cpu);
  return {
    count,
    calls: client.calls() - calls,
    calledMs,
    wallMs: performance.now() - began,
    cpuMs: (user + system) / 1000,
  };
}

const commands = {
  create(count: number): Promise<Durations> {
    const names = Array.from({ length: count }, (_, index) => `${installation}-${namespaces.length + index}`);
    namespaces.push(...names);
    const objects = new Map(names.map((name) => [name, objectsOf(name)]));
    return timed(
      count,
      () =>
        each(names, async (name) => {
          for (const object of objects.get(name)!) await client.apply(object);
        }),
      () => names.every((name) => pods.get(name)),
    );
  },
  stop(): Promise<Durations> {
    const ref = { apiVersion: 'apps/v1', kind: 'StatefulSet', name: 'workspace' };
    return timed(
      namespaces.length,
      () => each(namespaces, (namespace) => client.patch({ ...ref, namespace }, { spec: { replicas: 0 } })),
      () => pods.size === 0,
    );
  },
  remove: (): Promise<Durations> =>
    timed(
      namespaces.length,
      () =>
        each(namespaces.splice(0), (name) => client.remove({ apiVersion: 'v1', kind: 'Namespace', name })),
      () => true,
    ),
};

process.on('message', async (ask: { create?: number; stop?: true; remove?: true }) => {
  try {
    const took = ask.create
      ? await commands.create(ask.create)
      : ask.stop
        ? await commands.stop()
        : await commands.remove();
    process.send!({ took });
  } catch (error) {
    process.send!({ failed: (error as Error).message });
  }
});
process.on('disconnect', () => process.exit(0));
