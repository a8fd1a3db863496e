import type { NodeResources } from '@cde/api/nodes.ts';
import type Dockerode from 'dockerode';
import type { ProviderNodes } from '../provider.ts';
import { messageOf, versionOf } from './engine.ts';

/** How long an answer of the engine is used: its machine does not change, but it can stop answering. */
const cacheMs = 15_000;

interface EngineInfo {
  Name: string;
  NCPU: number;
  MemTotal: number;
  OperatingSystem: string;
  KernelVersion: string;
  Architecture: string;
  /** With its version. */
  runtime: string;
}

/** The host of the engine as a node. At most one call per 15 s, however many ask. */
export function makeDockerNodes(
  engine: () => Promise<Dockerode>,
  now: () => number = () => performance.now(),
): () => Promise<ProviderNodes> {
  let known: EngineInfo | null = null;
  let answer: { at: number; failure: Promise<string | null> } | null = null;

  async function ask(): Promise<string | null> {
    try {
      const client = await engine();
      known = { ...((await client.info()) as EngineInfo), runtime: await versionOf(client) };
      return null;
    } catch (error) {
      return `The Docker engine does not answer: ${messageOf(error)}.`;
    }
  }

  return async () => {
    if (!answer || now() - answer.at >= cacheMs) answer = { at: now(), failure: ask() };
    const failure = await answer.failure;
    const unseen = failure === null ? [] : [{ name: 'docker', reason: failure }];
    if (!known) return { nodes: [], unseen };
    const resources: NodeResources = {
      cpus: known.NCPU,
      memoryBytes: known.MemTotal,
      storageBytes: null,
      pods: null,
    };
    return {
      nodes: [
        {
          name: known.Name,
          cluster: null,
          state: failure === null ? 'ready' : 'unknown',
          reason: failure,
          schedulable: true,
          pool: null,
          os: known.OperatingSystem,
          kernel: known.KernelVersion,
          architecture: known.Architecture,
          runtime: known.runtime,
          capacity: resources,
          allocatable: resources,
          workspaceIds: null,
          kernelProfiles: [],
          kernelFault: null,
          notRestored: [],
        },
      ],
      unseen,
    };
  };
}
