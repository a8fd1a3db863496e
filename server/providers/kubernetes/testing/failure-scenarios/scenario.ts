import type { Container, Kube, KubeObject, PodSpec } from '../../api/models.ts';

/** A failure that is provoked in a namespace of its own, and how it has to be explained. */
export interface FailureScenario {
  name: string;
  code: string;
  message: RegExp;
  fatal: boolean;
  /** Labels of the namespace. */
  labels?: Record<string, string>;
  /** Created before the StatefulSet, in the namespace or cluster-wide. */
  before?: KubeObject[];
  pod?: Partial<PodSpec>;
  container?: Partial<Container>;
  /** The claim `home`, mounted at /home. */
  claim?: Kube<'PersistentVolumeClaim'>['spec'];
  /** Read the log of this container for its last lines. */
  log?: string;
  /** The message of `explainEnd` for the same pod. */
  end?: RegExp;
  /** Only works if the nodes run on this machine. */
  nodesAreLocal?: true;
}

export const object = (
  apiVersion: string,
  kind: string,
  name: string,
  rest: object,
  clusterWide = false,
): KubeObject => ({
  apiVersion,
  kind,
  metadata: { name, ...(clusterWide && { clusterWide: true }) },
  ...rest,
});
export const shell = (script: string) => ({ command: ['/bin/sh', '-c', script] });
export const small = { requests: { cpu: '10m', memory: '32Mi' }, limits: { memory: '32Mi' } };
export const claimOf = (storageClassName: string) => ({
  storageClassName,
  accessModes: ['ReadWriteOnce'],
  resources: { requests: { storage: '64Mi' } },
});

/** The StatefulSet `agent` of a scenario, like that of a workspace. */
export function statefulSetOf({ pod, container, claim }: FailureScenario): KubeObject {
  const { volumes = [], ...spec } = pod ?? {};
  const { volumeMounts = [], ...more } = container ?? {};
  return object('apps/v1', 'StatefulSet', 'agent', {
    spec: {
      serviceName: 'agent',
      replicas: 1,
      selector: { matchLabels: { app: 'agent' } },
      template: {
        metadata: { labels: { app: 'agent' } },
        spec: {
          terminationGracePeriodSeconds: 1,
          ...spec,
          volumes: [
            ...volumes,
            ...(claim ? [{ name: 'home', persistentVolumeClaim: { claimName: 'home' } }] : []),
          ],
          containers: [
            {
              name: 'agent',
              image: 'cde-test/debian:12',
              imagePullPolicy: 'IfNotPresent',
              ...shell('exec sleep 1000'),
              resources: small,
              ...more,
              volumeMounts: [...volumeMounts, ...(claim ? [{ name: 'home', mountPath: '/home' }] : [])],
            },
          ],
        },
      },
    },
  });
}
