import type { KubeNode } from './node.ts';
import { replaceFile } from './originals.ts';
import { annotationKey, type NodeView } from './report.ts';

/**
 * Stands for the node of a machine that is in no cluster: the virtual machine of one workspace. What a node reports in an
 * annotation is in `report`, a file that exists from the first report on.
 */
export function makeOwnMachine(report: string, log: (message: string) => void): KubeNode {
  let view: NodeView = { uid: '', labels: {}, annotations: {} };
  return {
    get: async () => view,
    async patch({ labels, annotations }) {
      const merge = (old: Readonly<Record<string, string>>, changes: Record<string, string | null>) =>
        Object.fromEntries(
          Object.entries({ ...old, ...changes }).filter(
            (entry): entry is [string, string] => entry[1] !== null,
          ),
        );
      const next = {
        ...view,
        labels: merge(view.labels, labels),
        annotations: merge(view.annotations, annotations),
      };
      replaceFile(report, next.annotations[annotationKey] ?? '{}');
      view = next;
      return view;
    },
    event: async (_, { message }) => log(message),
  };
}
