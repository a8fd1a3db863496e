/**
 * The baseline: the same manifests by plain client calls, `atOnce` namespaces at a time, each object after the other.
 * Objects are of an installation of their own, so that no watch of a server has work with them. By IPC:
 * `{create: N}` applies and waits until all pods run, `{stop: true}` scales to nothing and waits until they are gone,
 * `{remove: true}` deletes the namespaces; each is answered with a Took.
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

export interface Took {
  count: number;
  calls: number;
  /** Until every call had its answer. */
  calledMs: number;
  /** And until the pods were as they were to be. */
  wallMs: number;
  cpuMs: number;
}

const [kubeconfig, nodes, atOnceText] = process.argv.slice(2) as [string, string, string];
const atOnce = Number(atOnceText);
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

/** `work` for each, `atOnce` at a time. */
async function each(names: readonly string[], work: (name: string) => Promise<unknown>): Promise<void> {
  const left = [...names];
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      for (let name = left.shift(); name !== undefined; name = left.shift()) await work(name);
    }),
  );
}

async function timed(count: number, work: () => Promise<void>, isDone: () => boolean): Promise<Took> {
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
  create(count: number): Promise<Took> {
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
  stop(): Promise<Took> {
    const ref = { apiVersion: 'apps/v1', kind: 'StatefulSet', name: 'workspace' };
    return timed(
      namespaces.length,
      () => each(namespaces, (namespace) => client.patch({ ...ref, namespace }, { spec: { replicas: 0 } })),
      () => pods.size === 0,
    );
  },
  remove: (): Promise<Took> =>
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
