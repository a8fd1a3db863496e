import type { KubernetesSection, Manifest } from '@cde/api/template-file.ts';
import type { RenderedTemplate } from '../../providers/provider.ts';
import { formatQuantity } from '../../providers/quantity.ts';
import { templateObjects } from '../../providers/template-objects.ts';
import { asList, asMap, type Issue } from '../language/tree.ts';
import { podAt } from './manifest-rules.ts';

/** What pods and claims count for in a ResourceQuota: limits in cores and bytes, requests of storage in bytes. */
interface Need {
  cpus: number;
  memory: number;
  pods: number;
  storage: number;
}
type Resource = 'cpus' | 'memory';
const names = { cpus: 'cpu', memory: 'memory' } as const;

const exponents: Readonly<Record<string, number>> = {
  n: 1e-9,
  u: 1e-6,
  m: 1e-3,
  '': 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  E: 1e18,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
  Ei: 2 ** 60,
};

/** Any quantity that Kubernetes reads (`500m`, `1e3`, `2Gi`); null for anything else, such as an expression. */
function readQuantity(value: unknown): number | null {
  if (typeof value === 'number') return value;
  if (typeof value !== 'string') return null;
  const match = /^\+?(\d+\.?\d*|\.\d+)(?:([numkMGTPE]|[KMGTPE]i)|[eE]([-+]?\d{1,3}))?$/.exec(value.trim());
  if (!match) return null;
  return Number(match[1]) * (match[3] ? 10 ** Number(match[3]) : exponents[match[2] ?? '']!);
}

/** Of containers without limits, in a namespace whose quota counts them: the LimitRange gives them these. */
const defaultLimits = { cpus: 1, memory: 2 ** 30 } as const;

function limitOf(resources: unknown, resource: Resource): number | null {
  const limit = asMap(asMap(resources).limits)[names[resource]];
  return limit === undefined ? null : (readQuantity(limit) ?? 0);
}

/** What one pod counts for: its containers and sidecars together, or the largest of its init containers. */
function podNeed(pod: Record<string, unknown>, resource: Resource): number {
  const ofPod = limitOf(pod.resources, resource);
  if (ofPod !== null) return ofPod;
  const of = (container: unknown) => limitOf(asMap(container).resources, resource) ?? defaultLimits[resource];
  let sidecars = 0;
  let largest = 0;
  for (const container of asList(pod.initContainers)) {
    if (asMap(container).restartPolicy === 'Always') sidecars += of(container);
    largest = Math.max(largest, sidecars + (asMap(container).restartPolicy === 'Always' ? 0 : of(container)));
  }
  return Math.max(
    largest,
    asList(pod.containers).reduce<number>((sum, each) => sum + of(each), sidecars),
  );
}

/** How many pods of its kind an object runs at once. */
function podsOf(kind: string, spec: Record<string, unknown>): number {
  const amount = (value: unknown) => (value === undefined ? 1 : (readQuantity(value) ?? 0));
  switch (kind) {
    case 'Pod':
      return 1;
    case 'Deployment':
    case 'StatefulSet':
    case 'ReplicaSet':
    case 'ReplicationController':
      return amount(spec.replicas);
    case 'Job':
      return spec.suspend === true ? 0 : amount(spec.parallelism);
    case 'CronJob':
      return spec.suspend === true ? 0 : amount(asMap(asMap(spec.jobTemplate).spec).parallelism);
    default:
      return 0;
  }
}

/** What all of the objects need at once. Kinds of operators are not counted: nobody knows what they make. */
function needOf(objects: readonly Manifest[]): Need {
  const need: Need = { cpus: 0, memory: 0, pods: 0, storage: 0 };
  const claim = (spec: unknown, times: number) => {
    need.storage += times * (readQuantity(asMap(asMap(asMap(spec).resources).requests).storage) ?? 0);
  };
  for (const object of objects) {
    const spec = asMap(object.spec);
    if (object.kind === 'PersistentVolumeClaim') claim(spec, 1);
    const at = podAt(object.apiVersion, object.kind);
    const pods = at ? podsOf(object.kind, spec) : 0;
    if (!at || pods === 0) continue;
    const pod = asMap(at.reduce<unknown>((value, part) => asMap(value)[part as string], object));
    need.pods += pods;
    for (const resource of ['cpus', 'memory'] as const) need[resource] += pods * podNeed(pod, resource);
    for (const template of asList(spec.volumeClaimTemplates)) claim(asMap(template).spec, pods);
  }
  return need;
}

/**
 * A quota below what the objects of the template need would keep a part of every workspace from starting. Counted are the
 * objects as they go to the cluster, with what we add to them.
 */
export function quotaIssues(rendered: Pick<RenderedTemplate, 'kubernetes' | 'home' | 'manifests'>): Issue[] {
  const section = rendered.kubernetes as KubernetesSection | undefined;
  if (!section || Object.keys(section.quota).length === 0) return [];
  const need = needOf(templateObjects(rendered as RenderedTemplate));
  const shown = {
    cpus: (value: number) => `${Math.round(value * 1000) / 1000} cores`,
    memory: (value: number) => formatQuantity(Math.round(value)),
    pods: (value: number) => `${value} pods`,
    storage: (value: number) => formatQuantity(Math.round(value)),
  };
  return (Object.keys(shown) as (keyof Need)[]).flatMap((key) => {
    const has = readQuantity(section.quota[key]);
    if (has === null || need[key] <= has) return [];
    return [
      {
        path: ['kubernetes', 'quota', key],
        message: `the template itself needs ${shown[key](need[key])}, and the quota is ${key === 'pods' ? has : shown[key](has)}`,
        hint: 'raise the quota; what a developer adds to the namespace counts as well',
      },
    ];
  });
}
