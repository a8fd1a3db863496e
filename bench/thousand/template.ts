import { kwokSelector, kwokTaint } from '../../tests/cluster/kwok.ts';

/** The template of all workspaces of the benchmark. It pins them to the kwok nodes named `nodes-0` and so on. */
export const templateOf = (name: string, nodes: string): string => `
name: ${name}
provider: kubernetes
home: { size: 64Mi }
kubernetes:
  image: nothing.runs/here:1
  memory: 64Mi
  requests: { cpus: 0.01, memory: 64Mi }
  nodeSelector: ${JSON.stringify({ ...kwokSelector, 'cde-kwok': nodes })}
  tolerations: ${JSON.stringify([{ key: kwokTaint.key, value: kwokTaint.value, operator: 'Equal', effect: kwokTaint.effect }])}
`;
