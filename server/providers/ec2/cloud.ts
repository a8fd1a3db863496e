import type { Instance, InstanceTypeInfo } from '@aws-sdk/client-ec2';
import { isolationText } from '../vm/boot-data.ts';
import type { Begun, Cloud, LaunchPlan, Machine, MachineState } from '../vm/cloud.ts';
import { userData } from '../vm/user-data.ts';
import { accept, codeOf, type Ec2Address, type Ec2Client, isNotFound, makeEc2Client } from './client.ts';
import { consoleTail, explainEndOf } from './ends.ts';
import { homeDevice, workspaceInstance } from './instance.ts';
import { labelsOf, tags, tagsFor, withTag } from './names.ts';
import { ec2SectionOf } from './section.ts';
import { makeSurroundings, type Surroundings } from './surroundings.ts';
import { makeVolumes } from './volumes.ts';

const states: Record<string, MachineState> = {
  pending: 'starting',
  running: 'running',
  stopping: 'stopping',
  stopped: 'stopped',
  'shutting-down': 'ending',
  terminated: 'gone',
};
const architectures: Record<string, string> = { x86_64: 'amd64', arm64: 'arm64' };

function machineOf(instance: Instance): Machine {
  const { StateReason, BlockDeviceMappings = [] } = instance;
  return {
    id: instance.InstanceId!,
    state: states[instance.State?.Name ?? ''] ?? 'starting',
    zone: instance.Placement?.AvailabilityZone ?? '',
    type: instance.InstanceType ?? '',
    architecture: architectures[instance.Architecture ?? ''] ?? null,
    startedAt: instance.LaunchTime ?? null,
    volumes: BlockDeviceMappings.filter(({ Ebs }) => Ebs && Ebs.Status !== 'detached').map(
      ({ DeviceName, Ebs }) => ({
        id: Ebs!.VolumeId!,
        device: DeviceName!,
        isDeletedWithMachine: Ebs!.DeleteOnTermination ?? false,
      }),
    ),
    labels: labelsOf(instance),
    reason: [StateReason?.Code, StateReason?.Message, instance.StateTransitionReason]
      .filter(Boolean)
      .join(' '),
  };
}

/** EC2 as a cloud for workspaces. */
export async function connectEc2(address: Ec2Address, installation: string): Promise<Cloud> {
  const client = await makeEc2Client(address);
  const surroundings = makeSurroundings(client, installation);
  return {
    ...makeMachines(client, installation),
    ...makeLauncher(client, surroundings, installation),
    ...makeVolumes(client, installation),
    resources: makeResources(client),
    async zones(spec) {
      const subnets = await surroundings.subnets(ec2SectionOf(spec)!);
      return [...new Set(subnets.map(({ AvailabilityZone: zone }) => zone!))];
    },
    describeIsolation(spec, { zone }) {
      const section = ec2SectionOf(spec)!;
      return isolationText(section, {
        where: 'EC2',
        details: [section.instanceType, ...(section.spot ? ['spot'] : []), zone],
        network:
          section.securityGroups.length === 0
            ? 'accepts no connections from the network'
            : 'its security groups say who can connect to it',
      });
    },
    close: () => client.destroy(),
  };
}

const idsOf = (machines: readonly Machine[]) => machines.map(({ id }) => id);

function makeMachines(client: Ec2Client, installation: string) {
  return {
    async machines() {
      const all: Machine[] = [];
      let NextToken: string | undefined;
      do {
        const page = await client.describeInstances({
          Filters: [withTag(tags.installation, installation)],
          MaxResults: 1000,
          ...(NextToken !== undefined && { NextToken }),
        });
        for (const { Instances = [] } of page.Reservations ?? []) all.push(...Instances.map(machineOf));
        NextToken = page.NextToken;
      } while (NextToken);
      return all;
    },
    async terminate(machines: readonly Machine[]) {
      await accept(client.terminateInstances({ InstanceIds: idsOf(machines) }), 'InvalidInstanceID.NotFound');
    },
    async halt(machines: readonly Machine[]) {
      await accept(
        client.stopInstances({ InstanceIds: idsOf(machines) }),
        'IncorrectInstanceState',
        'InvalidInstanceID.NotFound',
      );
    },
    async keepVolume({ id }: Machine, device: string) {
      await client.modifyInstanceAttribute({
        InstanceId: id,
        BlockDeviceMappings: [{ DeviceName: device, Ebs: { DeleteOnTermination: false } }],
      });
    },
    async attach(machine: Machine, volume: { id: string }) {
      await accept(
        client.attachVolume({ VolumeId: volume.id, InstanceId: machine.id, Device: homeDevice }),
        // It is being attached, or the instance does not quite run yet.
        'VolumeInUse',
        'IncorrectState',
        'IncorrectInstanceState',
        'InvalidParameterValue',
      );
    },
    console: ({ id }: Machine) => consoleTail(client, id),
    explainEnd: async ({ reason }: Machine, console: string) => explainEndOf(reason, console),
    // Instances on Xen have no serial numbers, and other names of devices.
    bootDisk: ({ id }: { id: string }) => ({ serial: id.replace('-', ''), paths: ['/dev/xvdh'] }),
  };
}

function makeLauncher(client: Ec2Client, surroundings: Surroundings, installation: string) {
  return {
    async launch(plan: LaunchPlan, context: { log(text: string): void }): Promise<Begun> {
      const section = ec2SectionOf(plan.spec)!;
      const { zone } = plan.home;
      const image = await surroundings.image(section);
      const subnets = await surroundings.subnets(section);
      const subnet = subnets.find(({ AvailabilityZone: each }) => each === zone)!;
      const securityGroups = await surroundings.securityGroups(section, subnet.VpcId!);
      try {
        const { Instances } = await client.runInstances(
          workspaceInstance(plan, { installation, section, image, subnet, securityGroups }),
        );
        context.log(
          `instance ${Instances?.[0]?.InstanceId}: ${section.instanceType} in ${zone}, image ${image.id}`,
        );
      } catch (error) {
        // The call was made before, by a server with other settings: its instance appears in the next list.
        if (codeOf(error) === 'IdempotentParameterMismatch') return {};
        if (isNotFound(error)) surroundings.forget();
        throw error;
      }
      return {};
    },
    async restart({ id }: Machine, plan: LaunchPlan): Promise<Begun | null> {
      const isChanged = await accept(
        client.modifyInstanceAttribute({ InstanceId: id, UserData: { Value: userData(plan.boot) } }),
        'IncorrectInstanceState',
      );
      if (!isChanged) return null;
      // The build last: killed before it, the next step replaces what this one began.
      await client.startInstances({ InstanceIds: [id] });
      await client.createTags({ Resources: [id], Tags: tagsFor({ build: plan.launch.buildId }) });
      return {};
    },
  };
}

/** Types of instances are asked for once. */
function makeResources(client: Ec2Client): Cloud['resources'] {
  const types = new Map<string, InstanceTypeInfo | null>();
  return async (machines) => {
    const unknown = [...new Set(machines.map(({ type }) => type))].filter((type) => !types.has(type));
    if (unknown.length > 0) {
      const { InstanceTypes = [] } = await client.describeInstanceTypes({
        Filters: [{ Name: 'instance-type', Values: unknown }],
      });
      for (const type of unknown)
        types.set(type, InstanceTypes.find(({ InstanceType }) => InstanceType === type) ?? null);
    }
    return ({ type }) => {
      const found = types.get(type);
      if (!found) return null;
      const mebibytes = found.MemoryInfo?.SizeInMiB;
      return {
        cpus: found.VCpuInfo?.DefaultVCpus ?? null,
        memoryBytes: mebibytes ? mebibytes * 2 ** 20 : null,
      };
    };
  };
}
