import type { PlatformObject, PlatformObjects, ProviderState } from '../provider.ts';
import type { AgentVolumes } from './agent-volume.ts';
import { accept, type IncusClient, IncusError, orNull, path } from './client.ts';
import type { Homes } from './homes.ts';
import type { Instance } from './instance.ts';
import { keys } from './names.ts';
import { writeState } from './state.ts';
import { listVolumes, type PlacedVolume, volumePath, volumeQuery } from './volumes.ts';

/** What this installation has on the server, in all projects. Objects of others, and without keys, are not seen. */
export function makeObjects({
  client,
  installation,
  homes,
  agentVolumes,
}: {
  client: IncusClient;
  installation: string;
  homes: Homes;
  agentVolumes: AgentVolumes;
}): PlatformObjects {
  const isOurs = ({ config }: { config: Record<string, string> }) =>
    config[keys.installation] === installation;

  async function listInstances(): Promise<Instance[]> {
    const all = await client.get<Instance[]>('/1.0/instances', { recursion: '1', 'all-projects': 'true' });
    return all.filter(isOurs);
  }

  /** Volumes of one name can be in several projects and pools. */
  const nameOf = ({ place }: PlacedVolume) =>
    [place.project, place.pool, ...(place.member ? [place.member] : []), place.name].join('/');

  /** The agents of earlier versions of the server. */
  async function listOldAgents(): Promise<PlacedVolume[]> {
    const current = await agentVolumes.names();
    const all = await listVolumes(client, keys.role, 'agent');
    return all.filter((volume) => isOurs(volume) && !current.includes(volume.place.name));
  }

  async function removeInstance(object: PlatformObject): Promise<boolean> {
    const found = (await listInstances()).find(({ name }) => name === object.name);
    if (!found) return true;
    const isSame =
      found.config[keys.workspace] === object.workspaceId &&
      Date.parse(found.created_at) === object.createdAt?.getTime();
    if (!isSame) return false;
    const at = path`/1.0/instances/${found.name}`;
    const query = { project: found.project };
    return isRemoved(async () => {
      if (found.status !== 'Stopped')
        await accept(
          client.run('PUT', `${at}/state`, { query, body: { action: 'stop', force: true, timeout: -1 } }),
          404,
          /already stopped|not running/i,
        );
      await accept(client.run('DELETE', at, { query }), 404);
    });
  }

  return {
    async list() {
      const [instances, listedHomes, agents] = await Promise.all([
        listInstances(),
        homes.list(),
        listOldAgents(),
      ]);
      return [
        ...instances.map(
          ({ name, config, created_at }): PlatformObject => ({
            kind: 'compute',
            name,
            workspaceId: config[keys.workspace] ?? null,
            createdAt: new Date(created_at),
          }),
        ),
        ...agents.map(
          (volume): PlatformObject => ({
            kind: 'volume',
            name: nameOf(volume),
            workspaceId: null,
            createdAt: volume.createdAt,
          }),
        ),
        ...listedHomes.map(
          ({ place, config, createdAt }): PlatformObject => ({
            kind: 'home',
            name: place.name,
            workspaceId: config[keys.workspace] ?? null,
            createdAt,
            ...(config[keys.owner] && { owner: config[keys.owner] }),
            ...(config[keys.name] && { workspaceName: config[keys.name] }),
          }),
        ),
      ];
    },
    async remove(object) {
      if (object.kind === 'compute') return removeInstance(object);
      if (object.kind !== 'volume') return false;
      const found = (await listOldAgents()).find((volume) => nameOf(volume) === object.name);
      if (!found) return true;
      const { place } = found;
      const volume = await orNull(client.get<{ used_by: string[] }>(volumePath(place), volumeQuery(place)));
      if (!volume) return true;
      if (volume.used_by.length > 0) return false;
      return isRemoved(() =>
        accept(client.run('DELETE', volumePath(place), { query: volumeQuery(place) }), 404),
      );
    },
    async adopt(home, workspaceId, retainedAt): Promise<ProviderState | null> {
      const place = await homes.adopt(home, workspaceId, retainedAt);
      return place && writeState({ home: place });
    },
  };
}

/** False if the object is in use, or another server works on it. */
async function isRemoved(work: () => Promise<unknown>): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (error) {
    if (error instanceof IncusError && ![401, 403, 503].includes(error.status)) return false;
    throw error;
  }
}
