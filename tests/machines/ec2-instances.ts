import { existsSync, mkdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { EC2, Instance, Volume } from '@aws-sdk/client-ec2';
import { runAsync } from '../cluster/machine.ts';
import type { AmiFiles, AmiName } from './ec2-image.ts';
import { consoleFile, type Guest, startGuest } from './guest.ts';
import { type MetadataService, startMetadataService } from './metadata-service.ts';

/**
 * `pending`: until its guest boots. `ending`: its guest has been told to stop. `ended`: its guest ended by itself, which
 * moto does not know yet.
 */
export type Phase = 'pending' | 'running' | 'ending' | 'ended' | 'off';

export interface Machine {
  instance: Instance;
  folder: string;
  phase: Phase;
  /** Of the phase: what moto said before it is out of date. */
  since: number;
  guest: Guest | null;
  metadata: MetadataService;
  /** Whether its guest ended by itself the last time. */
  endedItself: boolean;
  attached: Set<string>;
}

export interface Ec2Instances {
  machines: ReadonlyMap<string, Machine>;
  /** Looks at once, and returns when everything has been begun that is to be done. */
  sync(): Promise<void>;
  copyToSnapshot(snapshotId: string, volumeId: string): Promise<void>;
  close(): Promise<void>;
}

const pollMs = 500;
/** As EC2, about: then it is switched off. */
const powerDownMs = 300_000;
const gibibyte = 2 ** 30;

const copySparse = (from: string, to: string) =>
  runAsync('cp', ['--sparse=always', '--reflink=auto', from, to]);

/** By instance type: guests are smaller than what they stand in for, because they share this machine. */
const sizeOf = (type = '') => ({
  cpus: /\.(nano|micro|small)$/.test(type) ? 1 : 2,
  memoryMiB: { nano: 512, micro: 768, small: 1024 }[type.split('.')[1] ?? ''] ?? 1536,
});

/** Boots a guest for each instance that moto says is running, and tells moto when one has powered itself off. */
export function runInstances(options: {
  client: EC2;
  folder: string;
  files: AmiFiles;
  onError(error: unknown): void;
}): Ec2Instances {
  const { client, folder, files, onError } = options;
  const machines = new Map<string, Machine>();
  /** The instance that has each volume in its guest. */
  const users = new Map<string, string>();
  const busy = new Map<string, Promise<void>>();
  let isClosed = false;
  const at = (kind: string, id: string) => join(folder, kind, `${id}.img`);
  for (const kind of ['volumes', 'snapshots', 'i']) mkdirSync(join(folder, kind), { recursive: true });

  /** One piece of work at a time for each instance. */
  function work(id: string, task: () => Promise<void>): void {
    if (busy.has(id)) return;
    const done = task()
      .catch(onError)
      .finally(() => busy.delete(id));
    busy.set(id, done);
  }

  async function volumeFile(volume: Volume): Promise<string> {
    const file = at('volumes', volume.VolumeId!);
    if (!existsSync(file)) {
      const origin = volume.SnapshotId ? at('snapshots', volume.SnapshotId) : '';
      if (existsSync(origin)) await copySparse(origin, file);
      else writeFileSync(file, '');
    }
    const bytes = volume.Size! * gibibyte;
    if (statSync(file).size < bytes) truncateSync(file, bytes);
    return file;
  }

  async function findVolumes(ids: string[]): Promise<{ id: string; file: string }[]> {
    if (ids.length === 0) return [];
    const { Volumes = [] } = await client.describeVolumes({ VolumeIds: ids });
    return Promise.all(
      Volumes.map(async (volume) => ({ id: volume.VolumeId!, file: await volumeFile(volume) })),
    );
  }

  const attribute = async (id: string, name: 'userData' | 'instanceInitiatedShutdownBehavior') =>
    client.describeInstanceAttribute({ InstanceId: id, Attribute: name });
  const userDataOf = async (id: string) =>
    Buffer.from((await attribute(id, 'userData')).UserData?.Value ?? '', 'base64');

  function enter(machine: Machine, phase: Phase): void {
    machine.phase = phase;
    machine.since = performance.now();
  }

  async function newMachine(instance: Instance): Promise<Machine> {
    const id = instance.InstanceId!;
    const own = join(folder, 'i', id.slice(2, 12));
    mkdirSync(own, { recursive: true });
    const metadata = await startMetadataService(async (path) => {
      if (path === 'user-data') return userDataOf(id);
      const known: Record<string, string | undefined> = {
        'meta-data/instance-id': id,
        'meta-data/instance-type': machine.instance.InstanceType,
        'meta-data/placement/availability-zone': machine.instance.Placement?.AvailabilityZone,
      };
      return known[path] ?? null;
    });
    const machine: Machine = {
      ...{ instance, folder: own, phase: 'pending', since: 0, guest: null, metadata },
      ...{ endedItself: false, attached: new Set<string>() },
    };
    machines.set(id, machine);
    return machine;
  }

  /** The disks beside the root that the instance should have, and that no other guest still has. */
  const wantedDisks = ({ instance, attached }: Machine) =>
    (instance.BlockDeviceMappings ?? [])
      .filter(({ DeviceName, Ebs }) => Ebs?.VolumeId && DeviceName !== instance.RootDeviceName)
      .map(({ Ebs }) => Ebs!.VolumeId!)
      .filter((volume) => attached.has(volume) || !users.has(volume));

  function take(machine: Machine, volumes: string[]): void {
    for (const volume of volumes) {
      users.set(volume, machine.instance.InstanceId!);
      machine.attached.add(volume);
    }
  }

  function release(machine: Machine, volumes: Iterable<string>): void {
    for (const volume of [...volumes]) {
      users.delete(volume);
      machine.attached.delete(volume);
    }
  }

  async function boot(machine: Machine): Promise<void> {
    const { instance } = machine;
    const id = instance.InstanceId!;
    const { Images = [] } = await client.describeImages({ ImageIds: [instance.ImageId!] });
    const name = Images[0]?.Name as AmiName;
    const ids = wantedDisks(machine);
    take(machine, ids);
    const guest = await startGuest({
      ...{ folder: machine.folder, instanceId: id, metadataPort: machine.metadata.port },
      ...{ kernel: files.kernel, ami: files.amis[name] },
      userData: await userDataOf(id),
      volumes: await findVolumes(ids),
      ...sizeOf(instance.InstanceType),
    });
    machine.guest = guest;
    machine.endedItself = false;
    enter(machine, 'running');
    void guest.exited.then(() => {
      machine.guest = null;
      release(machine, machine.attached);
      machine.endedItself = machine.phase === 'running';
      enter(machine, machine.endedItself ? 'ended' : 'off');
    });
  }

  /** As EC2 does with an instance that shut down by itself. */
  async function reportEnd(machine: Machine): Promise<void> {
    const id = machine.instance.InstanceId!;
    const behavior = (await attribute(id, 'instanceInitiatedShutdownBehavior'))
      .InstanceInitiatedShutdownBehavior;
    if (behavior?.Value === 'terminate') await client.terminateInstances({ InstanceIds: [id] });
    else await client.stopInstances({ InstanceIds: [id] });
    enter(machine, 'off');
  }

  async function end(machine: Machine): Promise<void> {
    const { guest } = machine;
    if (!guest) return;
    enter(machine, 'ending');
    await guest.powerDown().catch(() => {});
    // It does not notice the button.
    if (consoleOf(machine).includes('Kernel panic')) guest.kill();
    const waiting = new AbortController();
    await Promise.race([guest.exited, pause(powerDownMs, null, { signal: waiting.signal }).catch(() => {})]);
    waiting.abort();
    guest.kill();
    await guest.exited;
  }

  async function updateDisks(machine: Machine): Promise<void> {
    const { guest, attached } = machine;
    if (!guest) return;
    const wanted = wantedDisks(machine);
    for (const gone of [...attached].filter((volume) => !wanted.includes(volume))) {
      await guest.detach(gone);
      release(machine, [gone]);
    }
    const fresh = wanted.filter((volume) => !attached.has(volume));
    take(machine, fresh);
    for (const volume of await findVolumes(fresh)) await guest.attach(volume);
  }

  function step(machine: Machine): void {
    const id = machine.instance.InstanceId!;
    const isOn = ['pending', 'running'].includes(machine.instance.State?.Name ?? '');
    if (isOn && machine.phase === 'off') enter(machine, 'pending');
    if (machine.phase === 'ended') work(id, () => reportEnd(machine));
    else if (isOn && machine.phase === 'pending') work(id, () => boot(machine));
    else if (isOn && machine.phase === 'running') work(id, () => updateDisks(machine));
    else if (!isOn && machine.phase === 'running') work(id, () => end(machine));
    else if (!isOn && machine.phase === 'pending' && !busy.has(id)) enter(machine, 'off');
  }

  async function sync(): Promise<void> {
    const began = performance.now();
    const { Reservations = [] } = await client.describeInstances({});
    const seen = new Set<string>();
    for (const instance of Reservations.flatMap(({ Instances = [] }) => Instances)) {
      const id = instance.InstanceId!;
      seen.add(id);
      const known = machines.get(id);
      if (!known && instance.State?.Name === 'terminated') continue;
      const machine = known ?? (await newMachine(instance));
      if (machine.since > began) continue;
      machine.instance = instance;
      step(machine);
    }
    // Moto forgets them after a while, or was reset.
    for (const [id, machine] of machines) if (!seen.has(id) && machine.guest) work(id, () => end(machine));
  }

  const closing = new AbortController();
  const turning = (async () => {
    while (!isClosed) {
      await sync().catch((error) => isClosed || onError(error));
      await pause(pollMs, null, { signal: closing.signal }).catch(() => {});
    }
  })();

  return {
    machines,
    sync,
    async copyToSnapshot(snapshotId, volumeId) {
      const source = at('volumes', volumeId);
      if (existsSync(source)) await copySparse(source, at('snapshots', snapshotId));
    },
    async close() {
      isClosed = true;
      closing.abort();
      await turning;
      for (const { guest, metadata } of machines.values()) {
        guest?.kill();
        metadata.close();
        await guest?.exited;
      }
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** What a guest wrote to its serial console. */
export function consoleOf({ folder }: Machine): string {
  const file = consoleFile(folder);
  return existsSync(file) ? readFileSync(file, 'utf8') : '';
}
