import { type CoreV1Api, PatchStrategy, setHeaderOptions, type V1Node } from '@kubernetes/client-node';
import { soon } from './node.ts';
import { annotationKey, labelPrefix } from './report.ts';

const speaks = ({ metadata }: V1Node) =>
  metadata?.annotations?.[annotationKey] !== undefined ||
  Object.keys(metadata?.labels ?? {}).some((key) => key.startsWith(labelPrefix));
const away = ({ status }: V1Node) =>
  status?.conditions?.find(({ type }) => type === 'Ready')?.status !== 'True';

/**
 * Takes all profiles back: empties the ConfigMap, and waits until each node has put its kernel back and says
 * nothing of profiles any more. Rejects when some have not within the time; nodes that are away are named and not
 * waited for: a node that boots anew has nothing of ours.
 */
export async function restore({
  core,
  namespace,
  configMap,
  seconds,
  say,
}: {
  core: CoreV1Api;
  namespace: string;
  configMap: string;
  seconds: number;
  say: (line: string) => void;
}): Promise<void> {
  await soon(
    core.patchNamespacedConfigMap(
      { namespace, name: configMap, body: { data: { 'profiles.yaml': 'profiles: {}\n' } } },
      setHeaderOptions('Content-Type', PatchStrategy.MergePatch),
    ),
  );
  say(`No profile is asked for any more (ConfigMap ${namespace}/${configMap}).`);
  const until = performance.now() + seconds * 1000;
  for (;;) {
    const { items } = await soon(core.listNode());
    const left = items.filter(speaks);
    const waiting = left.filter((node) => !away(node)).map(({ metadata }) => metadata!.name!);
    if (waiting.length === 0) {
      for (const node of left) say(`The node ${node.metadata!.name} is away: it was not waited for.`);
      say('The kernels of all nodes are as they were.');
      return;
    }
    if (performance.now() > until)
      throw new Error(
        `These nodes did not put their kernels back within ${seconds} s: ${waiting.join(', ')}. ` +
          'Their annotation cde.dev/kernel-profiles and the log of noded there tell why.',
      );
    await new Promise((resolve) => setTimeout(resolve, 3_000));
  }
}
