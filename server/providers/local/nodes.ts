import { arch, availableParallelism, hostname, release, totalmem, type } from 'node:os';
import type { ProviderNodes } from '../provider.ts';

/** The server's own machine as a node. */
export function listLocalNodes(): ProviderNodes {
  const resources = {
    cpus: availableParallelism(),
    memoryBytes: totalmem(),
    storageBytes: null,
    pods: null,
  };
  return {
    nodes: [
      {
        name: hostname(),
        cluster: null,
        state: 'ready',
        reason: null,
        schedulable: true,
        pool: null,
        os: type(),
        kernel: release(),
        architecture: arch(),
        runtime: null,
        capacity: resources,
        allocatable: resources,
        workspaceIds: null,
        kernelProfiles: [],
        kernelFault: null,
        notRestored: [],
      },
    ],
    unseen: [],
  };
}
