import type { Instance, InstanceTypeInfo } from '@aws-sdk/client-ec2';
import type { NodeResources } from '@cde/api/nodes.ts';
import type { ProviderNode, ProviderNodes } from '../provider.ts';
import { type Ec2Client, messageOf } from './client.ts';
import { type InstanceView, isOn, stateOf, workspaceOf } from './instances.ts';

const maxAgeMs = 15_000;
const architectures: Record<string, string> = { x86_64: 'amd64', arm64: 'arm64' };

/** Each instance as a node, from the list that everything shares. Types of instances are asked for once. */
export function makeEc2Nodes({
  client,
  view,
  region,
}: {
  client: () => Promise<Ec2Client>;
  view: InstanceView;
  region: string;
}): () => Promise<ProviderNodes> {
  const types = new Map<string, InstanceTypeInfo | null>();
  let known: Instance[] = [];

  async function learnTypes(wanted: Iterable<string>) {
    const unknown = [...new Set(wanted)].filter((type) => !types.has(type));
    if (unknown.length === 0) return;
    const { InstanceTypes = [] } = await (await client()).describeInstanceTypes({
      Filters: [{ Name: 'instance-type', Values: unknown }],
    });
    for (const type of unknown)
      types.set(type, InstanceTypes.find(({ InstanceType }) => InstanceType === type) ?? null);
  }

  function nodeOf(instance: Instance, failure: string | null): ProviderNode {
    const type = types.get(instance.InstanceType ?? '');
    const resources: NodeResources = {
      cpus: type?.VCpuInfo?.DefaultVCpus ?? null,
      memoryBytes: type?.MemoryInfo?.SizeInMiB ? type.MemoryInfo.SizeInMiB * 2 ** 20 : null,
      storageBytes: null,
      pods: null,
    };
    const isReady = failure === null && stateOf(instance) === 'running';
    return {
      name: instance.InstanceId!,
      cluster: null,
      state: isReady ? 'ready' : failure === null ? 'not-ready' : 'unknown',
      reason: failure ?? (isReady ? null : 'The instance is starting.'),
      schedulable: true,
      pool: `${instance.InstanceType}, ${instance.Placement?.AvailabilityZone}`,
      os: null,
      kernel: null,
      architecture: architectures[instance.Architecture ?? ''] ?? null,
      runtime: 'EC2',
      capacity: resources,
      allocatable: resources,
      workspaceIds: [workspaceOf(instance)!],
      kernelProfiles: [],
      kernelFault: null,
      notRestored: [],
    };
  }

  return async () => {
    let failure: string | null = null;
    try {
      known = (await view.list(maxAgeMs)).all.filter((each) => isOn(each) && workspaceOf(each) !== null);
      await learnTypes(known.map(({ InstanceType }) => InstanceType!));
    } catch (error) {
      failure = `EC2 does not answer: ${messageOf(error)}.`;
    }
    return {
      nodes: known.map((each) => nodeOf(each, failure)),
      unseen: failure === null ? [] : [{ name: `ec2 ${region}`, reason: failure }],
    };
  };
}
