import { type IncusClient, path } from './client.ts';
import type { HomePlace } from './state.ts';

/** A volume, as the API shows it. */
export interface Volume {
  name: string;
  project: string;
  /** `none` on a server that is in no cluster; empty if all members reach the volume. */
  location: string;
  config: Record<string, string>;
  description: string;
  created_at: string;
}

export interface PlacedVolume {
  place: HomePlace;
  config: Volume['config'];
  createdAt: Date;
}

export const volumePath = ({ pool, name }: HomePlace) =>
  path`/1.0/storage-pools/${pool}/volumes/custom/${name}`;
export const volumeQuery = ({ project, member }: HomePlace) => ({ project, target: member });

/** The volumes of all projects and pools with a key of this value. */
export async function listVolumes(client: IncusClient, key: string, value: string): Promise<PlacedVolume[]> {
  const pools = (await client.get<string[]>('/1.0/storage-pools')).map((url) =>
    decodeURIComponent(url.split('/').at(-1)!),
  );
  const found: PlacedVolume[] = [];
  for (const pool of pools) {
    const volumes = await client.get<Volume[]>(path`/1.0/storage-pools/${pool}/volumes/custom`, {
      recursion: '1',
      'all-projects': 'true',
      filter: `config.${key} eq ${value}`,
    });
    for (const { name, project, location, config, created_at } of volumes)
      found.push({
        place: {
          project,
          pool,
          name,
          ...(location !== '' && location !== 'none' && { member: location }),
        },
        config,
        createdAt: new Date(created_at),
      });
  }
  return found;
}
