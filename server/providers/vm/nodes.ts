import type { NodeResources } from '@cde/api/nodes.ts';
import type { ProviderNode, ProviderNodes } from '../provider.ts';
import { type Cloud, type CloudKind, isOn, type Machine, type MachineResources } from './cloud.ts';
import type { MachineView } from './machine-view.ts';

const maxAgeMs = 15_000;

/** Each machine as a node, from the list that everything shares. */
export function makeCloudNodes({
  kind,
  cloud,
  view,
}: {
  kind: CloudKind;
  cloud: () => Promise<Cloud>;
  view: MachineView;
}): () => Promise<ProviderNodes> {
  let known: Machine[] = [];
  let resourcesOf: (machine: Machine) => MachineResources | null = () => null;

  function nodeOf(machine: Machine, failure: string | null): ProviderNode {
    const own = resourcesOf(machine);
    const resources: NodeResources = {
      cpus: own?.cpus ?? null,
      memoryBytes: own?.memoryBytes ?? null,
      storageBytes: null,
      pods: null,
    };
    const isReady = failure === null && machine.state === 'running';
    return {
      name: machine.id,
      cluster: null,
      state: isReady ? 'ready' : failure === null ? 'not-ready' : 'unknown',
      reason: failure ?? (isReady ? null : 'The instance is starting.'),
      schedulable: true,
      pool: `${machine.type}, ${machine.zone}`,
      os: null,
      kernel: null,
      architecture: machine.architecture,
      runtime: kind.title,
      capacity: resources,
      allocatable: resources,
      workspaceIds: [machine.labels.workspace!],
      kernelProfiles: [],
      kernelFault: null,
      notRestored: [],
    };
  }

  return async () => {
    let failure: string | null = null;
    try {
      known = (await view.list(maxAgeMs)).all.filter((each) => isOn(each) && each.labels.workspace);
      resourcesOf = await (await cloud()).resources(known);
    } catch (error) {
      failure = kind.passing(error) ?? `${kind.title} does not answer: ${(error as Error).message}.`;
    }
    return {
      nodes: known.map((each) => nodeOf(each, failure)),
      unseen: failure === null ? [] : [{ name: kind.place, reason: failure }],
    };
  };
}
