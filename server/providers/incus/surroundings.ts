import type { IncusSection } from '@cde/api/template-file.ts';
import { ProviderFailure } from '../failure.ts';
import { accept, alreadyThere, type IncusClient, orNull, path } from './client.ts';

export type Devices = Record<string, Record<string, string>>;

/** What the Incus server has around a workspace. */
export interface Surroundings {
  pool: string;
  /** The network device of the instance, and whether other workspaces cannot reach it there; null: it has none. */
  nic: { name: string; device: Record<string, string>; isIsolated: boolean } | null;
}

interface Network {
  type: string;
  managed: boolean;
}

/**
 * Projects that the provider creates share images, profiles and networks with the default project. They are not restricted,
 * because Incus restricts only projects that have profiles of their own.
 */
export async function ensureProject(client: IncusClient, project: string) {
  if (await orNull(client.get(path`/1.0/projects/${project}`))) return;
  const creation = client.send('POST', '/1.0/projects', {
    body: {
      name: project,
      description: 'Workspaces of cde',
      config: {
        'features.images': 'false',
        'features.profiles': 'false',
        'features.networks': 'false',
        'features.storage.volumes': 'true',
      },
    },
  });
  await accept(creation, 409, alreadyThere);
}

/** Where the workspace's volumes go, and how it is connected: as the template says, else as its profiles do. */
export async function findSurroundings(
  client: IncusClient,
  { project, profiles, network, pool }: IncusSection,
): Promise<Surroundings> {
  const devices: Devices = {};
  for (const profile of profiles) {
    const found = await orNull(client.get<{ devices: Devices }>(path`/1.0/profiles/${profile}`, { project }));
    if (!found)
      throw new ProviderFailure({
        code: 'incus-profile-missing',
        message: `The project ${project} of the Incus server has no profile ${profile}.`,
        hint: 'Create it, or change incus.profiles in the template.',
        fault: 'user',
      });
    Object.assign(devices, found.devices);
  }
  const entries = Object.entries(devices);
  const root = entries.find(([, { type, path: at }]) => type === 'disk' && at === '/');
  const known = pool ?? root?.[1].pool;
  if (known === undefined)
    throw new ProviderFailure({
      code: 'incus-pool-missing',
      message: 'Neither the template nor its profiles name a storage pool.',
      hint: 'Set incus.pool in the template, or give the profile a root disk.',
      fault: 'user',
    });
  return { pool: known, nic: await nicOf(client, project, network, entries) };
}

async function nicOf(
  client: IncusClient,
  project: string,
  network: string | undefined,
  devices: [name: string, device: Record<string, string>][],
): Promise<Surroundings['nic']> {
  const found = devices.find(([, { type }]) => type === 'nic');
  const name = found?.[0] ?? 'eth0';
  const device = network === undefined ? found?.[1] : { type: 'nic', name: 'eth0', network };
  if (!device) return null;
  const about = device.network
    ? await orNull(client.get<Network>(path`/1.0/networks/${device.network}`, { project }))
    : null;
  if (device.network && !about)
    throw new ProviderFailure({
      code: 'incus-network-missing',
      message: `The Incus server has no network ${device.network}.`,
      hint: 'Create it, or change incus.network in the template.',
      fault: 'user',
    });
  // Ports of other kinds of networks cannot be isolated.
  const isIsolated = device.nictype === 'bridged' || (about?.managed === true && about.type === 'bridge');
  return {
    name,
    device: isIsolated ? { ...device, 'security.port_isolation': 'true' } : device,
    isIsolated,
  };
}

/** The member of a cluster on which a new home is created; undefined: any will do, or there is no cluster. */
export async function chooseMember(
  client: IncusClient,
  { isClustered, target }: { isClustered: boolean; target: string | undefined },
): Promise<string | undefined> {
  if (!isClustered || target === undefined || !target.startsWith('@'))
    return isClustered ? target : undefined;
  const group = target.slice(1);
  const members = await client.get<{ server_name: string; status: string; groups: string[] }[]>(
    '/1.0/cluster/members',
    { recursion: '1' },
  );
  const online = members.filter(({ status, groups }) => status === 'Online' && groups.includes(group));
  if (online.length === 0)
    throw new ProviderFailure({
      code: 'incus-no-member',
      message: `No member of the group ${group} is online.`,
      hint: 'Check incus cluster list, or change incus.target in the template.',
      fault: 'system',
    });
  const instances = await client.get<{ location: string }[]>('/1.0/instances', {
    recursion: '1',
    'all-projects': 'true',
  });
  const countOn = (member: string) => instances.filter(({ location }) => location === member).length;
  return online.map(({ server_name }) => server_name).sort((a, b) => countOn(a) - countOn(b))[0];
}
