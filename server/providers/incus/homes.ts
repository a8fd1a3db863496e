import type { PlatformObject, PurgeResult, PurgeSelection } from '../provider.ts';
import { parseQuantity } from '../quantity.ts';
import { accept, alreadyThere, type IncusClient, IncusError, orNull, path, statusOf } from './client.ts';
import { homeVolume, keys } from './names.ts';
import type { HomePlace } from './state.ts';
import { listVolumes, type PlacedVolume, type Volume, volumePath, volumeQuery } from './volumes.ts';

export interface NewHome {
  /** Who to give it to if it is ever an orphan. */
  owner: string;
  /** Of its workspace. */
  workspaceName: string;
  project: string;
  pool: string;
  member: string | undefined;
  /** Bytes. */
  size: number | null;
  snapshots: { schedule: string; expiry?: string | undefined } | undefined;
}

export interface Homes {
  /** Where the workspace's home is; null: it has none. `hint`: where it was. */
  find(workspaceId: string, hint?: HomePlace): Promise<HomePlace | null>;
  create(workspaceId: string, home: NewHome): Promise<void>;
  /** Applies the size and the snapshots of a template. A home never gets smaller. Returns the size in bytes. */
  adjust(home: HomePlace, wanted: Pick<NewHome, 'size' | 'snapshots'>): Promise<number | null>;
  /** Makes the retained home of `from` that of `to`. False if there is none. */
  restore(from: string, to: string, hint?: HomePlace): Promise<boolean>;
  /** Undoes a restore: the home of `to` is retained as that of `from` again. */
  giveBack(from: string, to: string, now: Date, hint?: HomePlace): Promise<void>;
  /** False if the workspace has no home. */
  retain(workspaceId: string, now: Date, hint?: HomePlace): Promise<boolean>;
  /** False while an instance still uses the volume. */
  discard(workspaceId: string, hint?: HomePlace): Promise<boolean>;
  purge(selection: PurgeSelection): Promise<PurgeResult>;
  list(): Promise<PlacedVolume[]>;
  /** Makes a listed home that of the workspace, retained since then. Null if it is gone, or another workspace's by now. */
  adopt(home: PlatformObject, workspaceId: string, retainedAt: Date): Promise<HomePlace | null>;
}

/**
 * Homes are custom storage volumes. The keys of a volume say whose home it is and since when it is retained, so each change
 * of hands is one conditional write. The name stays that of the first workspace.
 */
export function makeHomes(client: IncusClient, installation: string): Homes {
  const isHome = ({ config }: Pick<Volume, 'config'>) =>
    config[keys.installation] === installation && config[keys.role] === 'home';

  /** All homes, or those with a key of this value. */
  const list = async (key: string, value: string) => (await listVolumes(client, key, value)).filter(isHome);

  async function find(workspaceId: string, hint?: HomePlace): Promise<HomePlace | null> {
    if (hint) {
      const volume = await orNull(client.get<Volume>(volumePath(hint), volumeQuery(hint)));
      if (volume && isHome(volume) && volume.config[keys.workspace] === workspaceId) return hint;
    }
    return (await list(keys.workspace, workspaceId))[0]?.place ?? null;
  }

  /** Changes the keys; `null` removes one. Nothing is changed if `isStill` says no: then false. */
  const changeKeys = (
    home: HomePlace,
    isStill: (config: Volume['config']) => boolean,
    changes: Record<string, string | null>,
  ) =>
    client.change<Volume>(volumePath(home), volumeQuery(home), (volume) => {
      if (!isStill(volume.config)) return null;
      const config = { ...volume.config };
      for (const [key, value] of Object.entries(changes)) {
        if (value === null) delete config[key];
        else config[key] = value;
      }
      return { config, description: volume.description };
    });
  const belongsTo = (workspaceId: string) => (config: Volume['config']) =>
    config[keys.workspace] === workspaceId && config[keys.purging] === undefined;

  async function remove(home: HomePlace): Promise<boolean> {
    try {
      await accept(client.run('DELETE', volumePath(home), { query: volumeQuery(home) }), 404);
      return true;
    } catch (error) {
      if (error instanceof IncusError && /in use|currently used|still .*use/i.test(error.message))
        return false;
      throw error;
    }
  }

  return {
    find,
    async create(workspaceId, { owner, workspaceName, project, pool, member, size, snapshots }) {
      const name = homeVolume(workspaceId);
      const config = {
        [keys.installation]: installation,
        [keys.role]: 'home',
        [keys.workspace]: workspaceId,
        [keys.owner]: owner,
        [keys.name]: workspaceName,
        ...(size !== null && { size: String(size) }),
        ...snapshotKeys(snapshots),
      };
      const creation = client.run('POST', path`/1.0/storage-pools/${pool}/volumes/custom`, {
        query: { project, target: member },
        body: { name, type: 'custom', content_type: 'filesystem', config },
      });
      await accept(creation, 409, alreadyThere);
    },
    async adjust(home, { size, snapshots }) {
      let result: number | null = null;
      await client.change<Volume>(volumePath(home), volumeQuery(home), ({ config, description }) => {
        const current = config.size ? parseQuantity(config.size) : null;
        result = size !== null && (current === null || size > current) ? size : current;
        const wanted = {
          ...config,
          ...(result !== null && { size: String(result) }),
          ...(snapshots && snapshotKeys(snapshots)),
        };
        const isSame = Object.entries(wanted).every(([key, value]) => config[key] === value);
        return isSame ? null : { config: wanted, description };
      });
      return result;
    },
    async restore(from, to, hint) {
      if (from !== to && (await find(to, hint))) return true;
      const home = await find(from, hint);
      if (!home) return false;
      return changeKeys(
        home,
        (config) => belongsTo(from)(config) && (from === to || config[keys.retainedAt] !== undefined),
        { [keys.workspace]: to, [keys.retainedAt]: null },
      );
    },
    async giveBack(from, to, now, hint) {
      const home = await find(to, hint);
      if (home)
        await changeKeys(home, belongsTo(to), {
          [keys.workspace]: from,
          [keys.retainedAt]: now.toISOString(),
        });
    },
    async retain(workspaceId, now, hint) {
      const home = await find(workspaceId, hint);
      if (!home) return false;
      await changeKeys(home, (config) => belongsTo(workspaceId)(config) && !config[keys.retainedAt], {
        [keys.retainedAt]: now.toISOString(),
      });
      return true;
    },
    async discard(workspaceId, hint) {
      const home = await find(workspaceId, hint);
      return home === null || (await remove(home));
    },
    async purge({ retainedBefore, only, except }) {
      const purged: string[] = [];
      let incomplete = false;
      for (const { place, config } of await list(keys.role, 'home')) {
        const workspaceId = config[keys.workspace]!;
        const isDue = (found: Volume['config']) =>
          found[keys.workspace] === workspaceId &&
          found[keys.retainedAt] !== undefined &&
          (!retainedBefore || Date.parse(found[keys.retainedAt]!) < retainedBefore.getTime());
        if (only !== undefined && workspaceId !== only) continue;
        if (except?.has(workspaceId) || !isDue(config)) continue;
        try {
          // From here on nothing takes it over.
          if (!(await changeKeys(place, isDue, { [keys.purging]: 'true' }))) continue;
        } catch (error) {
          // Another replica was first.
          if (statusOf(error) === 404) continue;
          throw error;
        }
        if (await remove(place)) purged.push(workspaceId);
        else incomplete = true;
      }
      return { purged, incomplete };
    },
    list: () => list(keys.role, 'home'),
    async adopt(home, workspaceId, retainedAt) {
      const found = (await list(keys.role, 'home')).find(({ place }) => place.name === home.name);
      if (!found) return null;
      const isAdopted = await changeKeys(found.place, belongsTo(home.workspaceId ?? ''), {
        [keys.workspace]: workspaceId,
        [keys.retainedAt]: retainedAt.toISOString(),
      });
      return isAdopted ? found.place : null;
    },
  };
}

const snapshotKeys = (snapshots: NewHome['snapshots']) => ({
  ...(snapshots && { 'snapshots.schedule': snapshots.schedule }),
  ...(snapshots?.expiry && { 'snapshots.expiry': snapshots.expiry }),
});
