import { isolationText } from '../vm/boot-data.ts';
import type { Begun, Cloud, LaunchPlan, Machine, MachineState } from '../vm/cloud.ts';
import {
  accept,
  alreadyExists,
  type GceAddress,
  type GceClient,
  GceError,
  inUse,
  makeGceClient,
  named,
  nameIn,
  notFound,
  notReady,
  type Operation,
  orNull,
  path,
} from './client.ts';
import { explainEndOf } from './ends.ts';
import { bootMetadata, homeDevice, homePaths, workspaceInstance } from './instance.ts';
import { fromLabels, toLabels, withLabels } from './names.ts';
import type { Instance } from './resources.ts';
import { gceSectionOf } from './section.ts';
import { makeSurroundings, type Surroundings } from './surroundings.ts';
import { makeVolumes, volumeId } from './volumes.ts';

const maxConsoleBytes = 8_000;
/** How long a change of the metadata of a stopped machine may take. */
const metadataMs = 15_000;
/** How long a refusal is waited for. */
const refusalMs = 2_000;
/** A machine takes up to a minute and a half to end; meanwhile nothing is gained by asking for it again. */
const repeatDeleteMs = 60_000;
const ends = '20';

const states: Record<Instance['status'], MachineState> = {
  PROVISIONING: 'starting',
  STAGING: 'starting',
  RUNNING: 'running',
  REPAIRING: 'running',
  STOPPING: 'stopping',
  PENDING_STOP: 'stopping',
  SUSPENDING: 'stopping',
  SUSPENDED: 'stopped',
  TERMINATED: 'stopped',
};
const architectures: Record<string, string> = { X86_64: 'amd64', ARM64: 'arm64' };

const at = ({ id, zone }: Pick<Machine, 'id' | 'zone'>) => path`/zones/${zone}/instances/${id}`;

export function machineOf(instance: Instance): Machine {
  const { disks = [] } = instance;
  const startedAt = instance.lastStartTimestamp ?? instance.creationTimestamp;
  return {
    id: instance.name,
    state: states[instance.status] ?? 'starting',
    zone: nameIn(instance.zone),
    type: nameIn(instance.machineType),
    architecture: architectures[disks.find(({ boot }) => boot)?.architecture ?? ''] ?? null,
    startedAt: startedAt === undefined ? null : new Date(startedAt),
    volumes: disks.map(({ source, deviceName, autoDelete }) => ({
      id: volumeId(source),
      device: deviceName,
      isDeletedWithMachine: autoDelete,
    })),
    labels: fromLabels(instance.labels),
    reason: instance.statusMessage ?? '',
  };
}

/** Google Compute as a cloud for workspaces. */
export async function connectGce(address: GceAddress, installation: string): Promise<Cloud> {
  const client = await makeGceClient(address);
  const surroundings = makeSurroundings(client, address.region, installation);
  return {
    ...makeMachines(client, installation),
    ...makeLauncher(client, surroundings, installation),
    ...makeVolumes(client, installation),
    zones: (spec) => surroundings.zones(gceSectionOf(spec)!),
    async resources(machines) {
      const key = ({ zone, type }: Machine) => `${zone}/${type}`;
      const kinds = new Map(machines.map((each) => [key(each), each]));
      const found = new Map(
        await Promise.all(
          [...kinds].map(
            async ([name, { zone, type }]) => [name, await surroundings.machineType(zone, type)] as const,
          ),
        ),
      );
      return (machine) => {
        const type = found.get(key(machine));
        return type ? { cpus: type.guestCpus, memoryBytes: type.memoryMb * 2 ** 20 } : null;
      };
    },
    describeIsolation(spec, { type, zone }) {
      const section = gceSectionOf(spec)!;
      return isolationText(section, {
        where: 'Google Compute',
        details: [type, ...(section.spot ? ['spot'] : []), zone],
        network:
          section.networkTags.length === 0
            ? 'accepts no connections from the network'
            : 'the firewall rules of its network tags say who can connect to it',
      });
    },
    close() {},
  };
}

function makeMachines(client: GceClient, installation: string) {
  /** When this server began to delete a machine, which then looks like one that stops. */
  const deletedAt = new Map<string, number>();
  const keyOf = ({ zone, id, startedAt }: Machine) => `${zone}/${id} ${startedAt?.getTime()}`;
  const isBeingDeleted = (machine: Machine) =>
    performance.now() - (deletedAt.get(keyOf(machine)) ?? Number.NEGATIVE_INFINITY) < repeatDeleteMs;

  return {
    async machines() {
      const found = await client.list<Instance>('/aggregated/instances', {
        filter: withLabels({ installation }),
        field: 'instances',
      });
      return found
        .map(machineOf)
        .map((each) => (isBeingDeleted(each) ? { ...each, state: 'ending' as const } : each));
    },
    async terminate(machines: readonly Machine[]) {
      for (const key of deletedAt.keys())
        if (performance.now() - deletedAt.get(key)! > repeatDeleteMs) deletedAt.delete(key);
      for (const machine of machines) {
        await accept(client.delete(at(machine)), notFound, notReady);
        deletedAt.set(keyOf(machine), performance.now());
      }
    },
    async halt(machines: readonly Machine[]) {
      for (const machine of machines) await accept(client.post(`${at(machine)}/stop`), notFound, notReady);
    },
    async keepVolume(machine: Machine, device: string) {
      const query = { autoDelete: 'false', deviceName: device };
      const operation = await accept(
        client.post(`${at(machine)}/setDiskAutoDelete`, undefined, query),
        notFound,
      );
      if (operation && !(await client.settle(operation, metadataMs)))
        throw new GceError(
          412,
          'resourceNotReady',
          `the disks of the instance ${machine.id} are being changed`,
        );
    },
    async attach(machine: Machine, { id }: { id: string }) {
      const [zone = '', name = ''] = id.split('/');
      const call = client.post(`${at(machine)}/attachDisk`, {
        source: path`projects/${client.project}/zones/${zone}/disks/${name}`,
        deviceName: homeDevice,
        mode: 'READ_WRITE',
        type: 'PERSISTENT',
        autoDelete: false,
      });
      // It is being attached, or the machine does not run any longer.
      await accept((async () => client.settle(await call, refusalMs))(), inUse, notReady, notFound);
    },
    async console(machine: Machine) {
      const read = client.get<{ contents?: string }>(`${at(machine)}/serialPort`, {
        port: '1',
        start: String(-maxConsoleBytes),
      });
      const answer = await accept(read, notFound, notReady, /^(badRequest|invalid)$/);
      return (answer?.contents ?? '').replaceAll('\r', '').slice(-maxConsoleBytes).trim();
    },
    async explainEnd(machine: Machine, console: string) {
      const instance = await orNull(client.get<Instance>(at(machine)));
      const operations = instance
        ? (
            await client.get<{ items?: Operation[] }>(path`/zones/${machine.zone}/operations`, {
              filter: `(targetId = ${instance.id})`,
              orderBy: 'creationTimestamp desc',
              maxResults: ends,
            })
          ).items
        : [];
      return explainEndOf(operations ?? [], console);
    },
    bootDisk: () => ({ serial: '', paths: homePaths }),
  };
}

function makeLauncher(client: GceClient, surroundings: Surroundings, installation: string) {
  return {
    async launch(plan: LaunchPlan, context: { log(text: string): void }): Promise<Begun> {
      const section = gceSectionOf(plan.spec)!;
      const { zone } = plan.home;
      const image = await surroundings.image(section);
      const network = await surroundings.network(section);
      const body = workspaceInstance(plan, { installation, section, image, network });
      try {
        // Of a repeated step.
        const operation = await accept(client.post(path`/zones/${zone}/instances`, body), alreadyExists);
        if (operation)
          context.log(`instance ${body.name}: ${section.machineType} in ${zone}, image ${image.name}`);
        return named(operation);
      } catch (error) {
        if (error instanceof GceError && notFound.test(error.reason)) surroundings.forget();
        throw error;
      }
    },
    async restart(machine: Machine, plan: LaunchPlan): Promise<Begun | null> {
      const instance = await orNull(client.get<Instance>(at(machine)));
      if (instance?.status !== 'TERMINATED') return null;
      const metadata = await client.post(`${at(machine)}/setMetadata`, {
        fingerprint: instance.metadata?.fingerprint,
        items: bootMetadata(plan.boot),
      });
      if (!(await client.settle(metadata, metadataMs))) return null;
      const started = await client.post(`${at(machine)}/start`);
      // The build last: killed before it, the next step replaces what this one began.
      await client.post(`${at(machine)}/setLabels`, {
        labels: { ...instance.labels, ...toLabels({ build: plan.launch.buildId }) },
        labelFingerprint: instance.labelFingerprint,
      });
      return named(started);
    },
    isFinished(operation: string) {
      const [zone = '', name = ''] = operation.split('/');
      return client.isDone({ name, zone });
    },
  };
}
