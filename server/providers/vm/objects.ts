import type { PlatformObject, PlatformObjects } from '../provider.ts';
import { type Cloud, isGone } from './cloud.ts';
import type { Homes } from './homes.ts';
import type { MachineView } from './machine-view.ts';

/** What this installation has in a cloud. What guards its network is not listed: all its workspaces use that. */
export function makeObjects({
  cloud: open,
  homes: openHomes,
  view,
}: {
  cloud: () => Promise<Cloud>;
  homes: () => Promise<Homes>;
  view: MachineView;
}): PlatformObjects {
  return {
    async list() {
      const cloud = await open();
      const volumes = await (await openHomes()).list('home', 'home-copy', 'old-home');
      const ids = new Set(volumes.map(({ id }) => id));
      const machines = (await view.list(0)).all.filter((each) => !isGone(each));
      // Those of a home are deleted with it.
      const snapshots = (await cloud.snapshots({ roles: ['snapshot', 'move'] })).filter(
        ({ labels }) => !ids.has(labels.from ?? ''),
      );
      return [
        ...machines.map(
          ({ id, labels, startedAt }): PlatformObject => ({
            kind: 'compute',
            name: id,
            workspaceId: labels.workspace ?? null,
            createdAt: startedAt,
          }),
        ),
        ...volumes.map(
          ({ id, labels, createdAt }): PlatformObject => ({
            kind: labels.role === 'home' ? 'home' : 'volume',
            name: id,
            workspaceId: labels.workspace ?? null,
            createdAt,
            ...(labels.owner !== undefined && { owner: labels.owner }),
            ...(labels.name !== undefined && { workspaceName: labels.name }),
          }),
        ),
        ...snapshots.map(
          ({ id, labels, createdAt }): PlatformObject => ({
            kind: 'volume',
            name: id,
            workspaceId: labels.workspace ?? null,
            createdAt,
          }),
        ),
      ];
    },
    async remove(object) {
      if (object.kind === 'home') return false;
      const cloud = await open();
      if (object.kind === 'compute') {
        const found = (await view.list(0)).all.find(({ id }) => id === object.name);
        if (!found || isGone(found)) return true;
        if ((found.labels.workspace ?? null) !== object.workspaceId) return false;
        await cloud.terminate([found]);
        view.changed();
        return true;
      }
      const named = ({ id }: { id: string }) => id === object.name;
      if ((await cloud.snapshots({ roles: ['snapshot', 'move'] })).some(named))
        return cloud.deleteSnapshot(object.name);
      const volume = (await (await openHomes()).list('home', 'home-copy', 'old-home')).find(named);
      if (!volume) return true;
      if (volume.labels.role === 'home' || (volume.labels.workspace ?? null) !== object.workspaceId)
        return false;
      return cloud.deleteVolume(object.name);
    },
    async adopt(home, workspaceId, retainedAt) {
      return (await (await openHomes()).adopt(home.name, workspaceId, retainedAt))
        ? { home: home.name }
        : null;
    },
  };
}
