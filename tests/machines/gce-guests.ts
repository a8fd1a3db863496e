import { setTimeout as delay } from 'node:timers/promises';
import type { GceClient } from '@cde/server/providers/gce/client.ts';
import { fromLabels, withLabels } from '@cde/server/providers/gce/names.ts';
import type { Disk, Instance } from '@cde/server/providers/gce/resources.ts';
import { volumeId } from '@cde/server/providers/gce/volumes.ts';
import type { BootPlan } from '@cde/server/providers/vm/user-data.ts';
import { until } from '../kit/until.ts';

interface Guest {
  plan: BootPlan;
  volume: string;
  isUp: boolean;
}

const zoneOf = ({ zone }: { zone: string }) => zone.slice(zone.lastIndexOf('/') + 1);

/**
 * Guests that only pretend: nothing boots. A machine that runs and has its home attached counts as one whose agent has
 * registered. They read the metadata that a real guest reads, and keep the files of homes by volume.
 */
export function makeGuests(options: {
  client: GceClient;
  installation: string;
  pollMs: number;
  /** The guest shuts down, with this on its console. */
  powerOff: (zone: string, name: string, console: string) => Promise<void>;
}) {
  const { client, installation } = options;
  const guests = new Map<string, Guest>();
  const files = new Map<string, Map<string, string>>();
  const registered = new Set<string>();
  let closed = false;
  let isKeptDown = false;

  const instances = () =>
    client.list<Instance>('/aggregated/instances', {
      filter: withLabels({ installation }),
      field: 'instances',
    });

  /** The files of a volume, copied if it was made from a snapshot. */
  async function homeOf(volume: string, mayFormat: boolean): Promise<Map<string, string> | null> {
    if (files.has(volume)) return files.get(volume)!;
    const [zone = '', name = ''] = volume.split('/');
    const { from } = fromLabels((await client.get<Disk>(`/zones/${zone}/disks/${name}`)).labels);
    const home = from !== undefined ? new Map(files.get(from)) : mayFormat ? new Map<string, string>() : null;
    if (home) files.set(volume, home);
    return home;
  }

  async function boot(instance: Instance): Promise<void> {
    const { name, metadata, disks = [] } = instance;
    const text = metadata!.items!.find(({ key }) => key === 'user-data')!.value;
    const plan = JSON.parse(JSON.parse(text.slice(text.indexOf('\n'))).bootcmd[0].at(-1)) as BootPlan;
    const found = guests.get(name);
    if (found?.isUp && found.plan.build === plan.build) return;
    const home = disks.find(({ deviceName }) =>
      plan.disk.paths.includes(`/dev/disk/by-id/google-${deviceName}`),
    );
    if (!home) return;
    const volume = volumeId(home.source);
    if (isKeptDown) return;
    const content = await homeOf(volume, plan.mayFormat);
    guests.set(name, { plan, volume, isUp: content !== null });
    if (content) registered.add(plan.build);
    else
      await options.powerOff(
        zoneOf(instance),
        name,
        '{"code":"home-lost","message":"The disk of the home has no file system."}\n',
      );
  }

  async function look(): Promise<void> {
    for (const instance of await instances()) {
      if (instance.status === 'RUNNING') await boot(instance);
      else {
        const guest = guests.get(instance.name);
        if (guest) guest.isUp = false;
      }
    }
  }

  const looking = (async () => {
    while (!closed) {
      // Between two calls, a machine can be deleted.
      await look().catch(() => {});
      await delay(options.pollMs);
    }
  })();

  const runningOf = async (workspaceId: string) =>
    (await instances()).filter(
      ({ status, labels }) => status === 'RUNNING' && fromLabels(labels).workspace === workspaceId,
    );

  return {
    instances,
    runningOf,
    hasRegistered: async (buildId: string) => registered.has(buildId),
    /** From now on, guests do not get as far as their agent. */
    keepDown() {
      isKeptDown = true;
    },
    /** As if someone had written zeros over the volume. */
    loseFiles: (volume: string) => files.delete(volume),
    /** The files of the home that a running workspace has mounted. */
    async homeOf(workspaceId: string): Promise<Map<string, string>> {
      const volume = await until(async () => {
        const [instance] = await runningOf(workspaceId);
        const guest = guests.get(instance?.name ?? '');
        return guest?.isUp ? guest.volume : null;
      }, 'the guest');
      return files.get(volume)!;
    },
    /** The agent is killed, and with it ends its machine. */
    async killAgent(workspaceId: string): Promise<void> {
      for (const instance of await runningOf(workspaceId))
        await options.powerOff(
          zoneOf(instance),
          instance.name,
          'booted\ncde-agent ended: signal killed KILL running\n',
        );
    },
    async close() {
      closed = true;
      await looking;
    },
  };
}
export type Guests = ReturnType<typeof makeGuests>;
