import { type Command, command } from '../command/command.ts';

const group = 'Administration:';

export const nodeCommands: readonly Command[] = [
  command({
    name: 'node list',
    aliases: ['node ls'],
    group,
    summary: 'List the nodes that workspaces run on',
    details:
      'Lists the nodes of all clusters, the host of the Docker engine and the machine of the server, with the kernel profiles that ' +
      'noded maintains on them.',
    options: {
      cluster: { kind: 'text', value: 'CLUSTER', help: 'Only nodes of this cluster', completes: 'clusters' },
      workspace: {
        kind: 'text',
        value: 'WORKSPACE',
        help: 'Only the node of this workspace',
        completes: 'workspaces',
      },
      profile: { kind: 'text', value: 'NAME', help: 'Only nodes that this kernel profile applies to' },
      problems: { kind: 'flag', help: 'Only nodes that are not ready, or whose kernel profiles are not' },
    },
    examples: [
      ['cde node list', 'all nodes'],
      ['cde node list --problems', 'what needs attention'],
      ['cde node list --workspace ada/web', 'where a workspace runs'],
    ],
    load: () => import('./nodes.ts').then((m) => m.list),
  }),
  command({
    name: 'node show',
    group,
    summary: 'Show a node, its workspaces and its kernel profiles',
    arguments: {
      node: { help: 'NODE, or CLUSTER/NODE if several clusters have one of that name', completes: 'nodes' },
    },
    examples: [
      ['cde node show pool-1-a3f', 'capacity, workspaces, and why a kernel profile is not ready'],
      ['cde node show eu/pool-1-a3f --json', 'of the cluster eu, for a script'],
    ],
    load: () => import('./nodes.ts').then((m) => m.show),
  }),
];
