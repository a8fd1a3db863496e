import type { GceSection } from '@cde/api/template-cloud.ts';
import { ProviderFailure } from '../failure.ts';
import { makeCache } from '../vm/cache.ts';
import { digest } from '../vm/labels.ts';
import { accept, alreadyExists, type GceClient, GceError, nameIn, orNull, path } from './client.ts';
import { networkTag } from './names.ts';
import type { Image, MachineType } from './resources.ts';

/** How long a step waits for the firewall rule, which takes seconds once. */
const firewallMs = 15_000;
/** Rules of the network with a smaller number come first. */
const priority = 500;

/** What the project has around a workspace: images, zones, machine types and the network. */
export function makeSurroundings(client: GceClient, region: string, installation: string) {
  const cache = makeCache();
  const { project } = client;

  async function findImage({ image, imageProject = project }: GceSection): Promise<Image> {
    const found =
      (await orNull(client.get<Image>(path`projects/${imageProject}/global/images/family/${image}`))) ??
      (await orNull(client.get<Image>(path`projects/${imageProject}/global/images/${image}`)));
    if (!found)
      throw new ProviderFailure({
        code: 'image-not-found',
        message: `The project ${imageProject} has no image or image family ${image}, or this server may not use it.`,
        hint: 'Check gce.image and gce.imageProject in the template.',
        fault: 'user',
      });
    checkArchitecture(found);
    return found;
  }

  const regionZones = () =>
    cache.get('zones', async () => {
      const all = await client.list<{ name: string; region: string; status: string }>('/zones');
      return all
        .filter((zone) => nameIn(zone.region) === region && zone.status === 'UP')
        .map(({ name }) => name)
        .sort();
    });

  const machineType = (zone: string, type: string) =>
    cache.get(`type ${zone} ${type}`, () =>
      orNull(client.get<MachineType>(path`/zones/${zone}/machineTypes/${type}`)).catch((error) => {
        // Of a name that cannot be one.
        if (error instanceof GceError && error.status === 400) return null;
        throw error;
      }),
    );

  /** Of another project, it is a whole path. */
  const subnetworkPath = (name: string) =>
    name.includes('/') ? name : path`projects/${project}/regions/${region}/subnetworks/${name}`;
  const networkOf = ({ network, subnetwork }: GceSection): Promise<string> =>
    cache.get(`network ${network} ${subnetwork}`, async () => {
      if (subnetwork !== undefined)
        return (await client.get<{ network: string }>(subnetworkPath(subnetwork))).network;
      return network.includes('/') ? network : path`projects/${project}/global/networks/${network}`;
    });

  async function ensureFirewall(network: string): Promise<string> {
    const name = `${networkTag(installation)}-${digest(network).slice(0, 6)}`;
    if (await orNull(client.get(path`/global/firewalls/${name}`))) return name;
    const made = await accept(
      client.post('/global/firewalls', {
        name,
        network,
        description: 'Workspaces of cde: no incoming connections',
        direction: 'INGRESS',
        priority,
        denied: [{ IPProtocol: 'all' }],
        sourceRanges: ['0.0.0.0/0'],
        targetTags: [networkTag(installation)],
      }),
      alreadyExists,
    );
    if (made && !(await client.settle(made, firewallMs)))
      throw new GceError(412, 'resourceNotReady', `the firewall rule ${name} is being created`);
    return name;
  }

  return {
    image: (section: GceSection) =>
      cache.get(`image ${section.imageProject} ${section.image}`, () => findImage(section)),

    machineType,

    /** The zones that the template permits and that have its machine type. */
    async zones({ zones: wanted, machineType: type }: GceSection): Promise<string[]> {
      const all = await regionZones();
      const permitted = all.filter((zone) => wanted.length === 0 || wanted.includes(zone));
      if (permitted.length === 0)
        throw new ProviderFailure({
          code: 'gcp-setting-invalid',
          message: `None of the zones of the template is in use in ${region}: ${wanted.join(', ') || 'none'}.`,
          hint: `Change gce.zones in the template. The region has ${all.join(', ')}.`,
          fault: 'user',
        });
      const found = await Promise.all(permitted.map((zone) => machineType(zone, type)));
      const fitting = permitted.filter((_, index) => found[index] !== null);
      if (fitting.length > 0) return fitting;
      throw new ProviderFailure({
        code: 'instance-type-not-supported',
        message: `No zone of the template has the machine type ${type}: ${permitted.join(', ')}.`,
        hint: 'Change gce.machineType or gce.zones in the template.',
        fault: 'user',
      });
    },

    /** What the machine connects to, with a rule that permits no connections, unless the template names others. */
    async network(section: GceSection): Promise<{ network: string } | { subnetwork: string }> {
      const network = await networkOf(section);
      if (section.networkTags.length === 0)
        await cache.get(`firewall ${network}`, () => ensureFirewall(network));
      return section.subnetwork === undefined
        ? { network }
        : { subnetwork: subnetworkPath(section.subnetwork) };
    },

    /** Something that it named does not exist any longer. */
    forget: () => cache.clear(),
  };
}

export type Surroundings = ReturnType<typeof makeSurroundings>;

function checkArchitecture({ architecture, name }: Image): void {
  const own = { x64: 'X86_64', arm64: 'ARM64' }[process.arch as string] ?? process.arch;
  if (architecture === own || architecture === undefined || architecture === 'ARCHITECTURE_UNSPECIFIED')
    return;
  throw new ProviderFailure({
    code: 'wrong-architecture',
    message: `The image ${name} is for ${architecture}, and this server's agent, which it has to run, for ${own}.`,
    hint: "Use an image and a machine type with this server's processor.",
    fault: 'user',
  });
}
