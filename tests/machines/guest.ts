import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { until } from '../kit/until.ts';
import { type Ami, rootPartition } from './ec2-image.ts';

const run = promisify(execFile);

export interface GuestVolume {
  id: string;
  /** A raw disk. */
  file: string;
}

export interface GuestPlan {
  /** Its own, with a short path because of the sockets in it. Keeps the root disk and the console of earlier boots. */
  folder: string;
  instanceId: string;
  kernel: string;
  ami: Ami;
  userData: Buffer;
  volumes: GuestVolume[];
  /** Of the metadata service, on the loopback of this machine, which is 10.0.2.2 in the guest. */
  metadataPort: number;
  memoryMiB: number;
  cpus: number;
}

/** A virtual machine without hardware virtualisation, or what stands in for one. */
export interface Guest {
  exited: Promise<unknown>;
  /** As its power button does. */
  powerDown(): Promise<void>;
  kill(): void;
  attach(volume: GuestVolume): Promise<void>;
  detach(volumeId: string): Promise<void>;
}

/** Disks beside root and seed that a guest can have. */
const slots = 2;

export const consoleFile = (folder: string) => join(folder, 'console');
export const agentSocket = (folder: string) => join(folder, 'agent.sock');

/** Boots a guest with QEMU. Its disks are NVMe with the volume's id as their serial number, as those of EC2 are.
 * Unlike EC2's, they grow at the next boot: QEMU's NVMe does not tell a guest of a new size. */
export async function startGuest(plan: GuestPlan): Promise<Guest> {
  const { folder } = plan;
  const seed = join(folder, 'seed');
  mkdirSync(seed, { recursive: true });
  writeFileSync(
    join(seed, 'meta-data'),
    `instance-id: ${plan.instanceId}\nlocal-hostname: ${plan.instanceId}\n`,
  );
  writeFileSync(join(seed, 'user-data'), plan.userData);
  const root = join(folder, 'root.qcow2');
  const isFirst = await run('qemu-img', ['info', root]).then(
    () => false,
    () => true,
  );
  if (isFirst) await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', plan.ami.disk, '-F', 'raw', root]);
  const control = join(folder, 'qmp.sock');
  const log = openSync(join(folder, 'log'), 'a');
  const child = spawn(
    'setpriv',
    ['--pdeathsig', 'KILL', 'qemu-system-x86_64', ...argumentsOf(plan, { root, seed, control })],
    {
      stdio: ['ignore', log, log],
    },
  );
  const exited = once(child, 'exit');
  const monitor = await connectMonitor(control, child, join(folder, 'log'));
  const guest: Guest = {
    exited,
    powerDown: async () => void (await monitor.command('system_powerdown')),
    kill: () => void child.kill('SIGKILL'),
    ...disksOf(monitor),
  };
  // It waits, so that it finds these disks when it boots.
  for (const volume of plan.volumes) await guest.attach(volume);
  await monitor.command('cont');
  return guest;
}

function argumentsOf(plan: GuestPlan, files: { root: string; seed: string; control: string }): string[] {
  const kernelLine = [
    `root=PARTUUID=${rootPartition} rw console=ttyS0 quiet mitigations=off net.ifnames=0`,
    `random.trust_cpu=on systemd.show_status=error CDE_METADATA_PORT=${plan.metadataPort}`,
    ...plan.ami.kernelOptions,
  ].join(' ');
  return [
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-S', '-machine', 'q35'],
    ...['-accel', 'tcg,thread=multi', '-cpu', 'max', '-smp', String(plan.cpus), '-m', String(plan.memoryMiB)],
    ...['-kernel', plan.kernel, '-append', kernelLine],
    ...['-drive', `if=none,id=root,file=${files.root},cache=unsafe,discard=unmap`],
    ...['-device', 'nvme,drive=root,serial=root'],
    ...['-blockdev', `driver=vvfat,dir=${files.seed},label=cidata,read-only=on,node-name=seed`],
    ...['-device', 'nvme,drive=seed,serial=seed'],
    ...Array.from({ length: slots }, (_, slot) => [
      '-device',
      `pcie-root-port,id=slot${slot},chassis=${slot + 1}`,
    ]).flat(),
    ...['-netdev', 'user,id=net', '-device', 'virtio-net-pci,netdev=net,romfile='],
    ...['-device', 'virtio-rng-pci', '-device', 'virtio-serial-pci'],
    ...['-chardev', `socket,id=agent,path=${agentSocket(plan.folder)},server=on,wait=off`],
    ...['-device', 'virtserialport,chardev=agent,name=org.qemu.guest_agent.0'],
    ...[
      '-chardev',
      `file,id=console,path=${consoleFile(plan.folder)},append=on`,
      '-serial',
      'chardev:console',
    ],
    ...['-qmp', `unix:${files.control},server=on,wait=off`],
  ];
}

interface Monitor {
  command<T>(name: string, values?: Record<string, unknown>): Promise<T>;
  /** The next event of that name about the device. */
  event(name: string, device: string): Promise<unknown>;
}

/** QEMU's control protocol. */
async function connectMonitor(path: string, child: ChildProcess, log: string): Promise<Monitor> {
  const open = () =>
    new Promise<Socket | null>((resolve) => {
      const socket = connect(path).once('connect', () => resolve(socket));
      socket.once('error', () => resolve(null));
    });
  const socket = await until(() => {
    if (child.exitCode !== null) throw new Error(`QEMU ended:\n${readFileSync(log, 'utf8').slice(-2000)}`);
    return open();
  }, 'QEMU');
  socket.on('error', () => {});
  let last = 0;
  const waiting = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  const listeners = new Set<(event: { event: string; data?: { device?: string } }) => void>();
  socket.once('close', () => {
    for (const { reject } of waiting.values()) reject(new Error('QEMU ended'));
  });
  createInterface({ input: socket }).on('line', (line) => {
    const message = JSON.parse(line);
    const waiter = waiting.get(message.id);
    if (message.event) for (const listener of listeners) listener(message);
    else if (message.error) waiter?.reject(new Error(message.error.desc));
    else waiter?.resolve(message.return);
  });
  const command = <T>(execute: string, values?: Record<string, unknown>) =>
    new Promise<T>((resolve, reject) => {
      const id = ++last;
      waiting.set(id, { resolve: resolve as (value: unknown) => void, reject });
      if (socket.destroyed) reject(new Error('QEMU ended'));
      else socket.write(`${JSON.stringify({ execute, id, arguments: values })}\n`);
    });
  await command('qmp_capabilities');
  return {
    command,
    event: (name, device) =>
      new Promise((resolve, reject) => {
        const listener = (message: { event: string; data?: { device?: string } }) => {
          if (message.event !== name || message.data?.device !== device) return;
          listeners.delete(listener);
          resolve(message);
        };
        listeners.add(listener);
        socket.once('close', () => reject(new Error('QEMU ended')));
      }),
  };
}

function disksOf(monitor: Monitor): Pick<Guest, 'attach' | 'detach'> {
  const used = new Map<string, number>();
  return {
    async attach({ id, file }) {
      const free = Array.from({ length: slots }, (_, slot) => slot).find(
        (slot) => ![...used.values()].includes(slot),
      );
      if (free === undefined) throw new Error(`The guest has room for ${slots} volumes`);
      used.set(id, free);
      const cache = { 'no-flush': true };
      await monitor.command('blockdev-add', {
        ...{ driver: 'raw', 'node-name': id, cache },
        file: { driver: 'file', filename: file, cache },
      });
      const serial = id.replace('-', '');
      await monitor.command('device_add', {
        driver: 'nvme',
        id: `disk-${id}`,
        drive: id,
        serial,
        bus: `slot${free}`,
      });
    },
    async detach(id) {
      if (!used.has(id)) return;
      const gone = monitor.event('DEVICE_DELETED', `disk-${id}`);
      gone.catch(() => {});
      await monitor.command('device_del', { id: `disk-${id}` });
      await gone;
      await monitor.command('blockdev-del', { 'node-name': id });
      used.delete(id);
    },
  };
}
