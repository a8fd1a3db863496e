import type Dockerode from 'dockerode';
import type { PlatformObject, PlatformObjects } from '../provider.ts';
import type { AgentVolumes } from './agent-volume.ts';
import { orNull, statusOf } from './engine.ts';
import type { Homes } from './homes.ts';
import { hasLabels, labels, withLabels } from './names.ts';
import { removeNetworks } from './networks.ts';

/** What this installation has on the engine. Objects of others, and without labels, are not seen. */
export function makeObjects({
  engine,
  installation,
  homes,
  agentVolumes,
}: {
  engine: Dockerode;
  installation: string;
  homes: Homes;
  agentVolumes: AgentVolumes;
}): PlatformObjects {
  const ofInstallation = { [labels.installation]: installation };
  const ours = { filters: withLabels(ofInstallation) };
  const workspaceOf = (own: Record<string, string> | null | undefined) => own?.[labels.workspace] ?? null;

  async function listContainers(currentAgent: string): Promise<PlatformObject[]> {
    return (await engine.listContainers({ ...ours, all: true }))
      .filter(
        ({ Names, Labels }) => hasLabels(Labels, ofInstallation) && Names[0] !== `/${currentAgent}-filler`,
      )
      .map(({ Names, Labels, Created }) => ({
        kind: 'compute',
        name: Names[0]!.slice(1),
        workspaceId: workspaceOf(Labels),
        createdAt: new Date(Created * 1000),
      }));
  }

  async function listNetworks(): Promise<PlatformObject[]> {
    return (await engine.listNetworks(ours))
      .filter(({ Labels }) => hasLabels(Labels, ofInstallation))
      .map(({ Name, Labels, Created }) => ({
        kind: 'network',
        name: Name,
        workspaceId: workspaceOf(Labels),
        createdAt: moment(Created),
      }));
  }

  /** The agents of earlier versions of the server. */
  async function listOldAgents(currentAgent: string): Promise<PlatformObject[]> {
    const wanted = { [labels.installation]: installation, [labels.role]: 'agent' };
    const { Volumes } = await engine.listVolumes({ filters: withLabels(wanted) });
    const found = (Volumes ?? []).filter(({ Labels }) => hasLabels(Labels, wanted));
    const old = new Map(found.map((volume) => [agentOf(volume.Name), volume]));
    old.delete(currentAgent);
    return [...old].map(([name, volume]) => ({
      kind: 'volume',
      name,
      workspaceId: null,
      createdAt: createdAt(volume),
    }));
  }

  const isStillOurs = (
    { Labels }: { Labels?: Record<string, string> | null },
    { workspaceId }: PlatformObject,
  ) => hasLabels(Labels, ofInstallation) && workspaceOf(Labels) === workspaceId;

  /** False if the object is in use. */
  async function removed(call: Promise<unknown>): Promise<boolean> {
    try {
      await call;
    } catch (error) {
      const status = statusOf(error);
      if (status === 409) return false;
      if (status !== 404) throw error;
    }
    return true;
  }

  return {
    async list() {
      const currentAgent = await agentVolumes.name();
      const { homes: listedHomes, strayRecords } = await homes.list();
      return [
        ...(await listContainers(currentAgent)),
        ...(await listNetworks()),
        ...strayRecords.map(
          (volume): PlatformObject => ({
            kind: 'volume',
            name: volume.Name,
            workspaceId: workspaceOf(volume.Labels),
            createdAt: createdAt(volume),
          }),
        ),
        ...(await listOldAgents(currentAgent)),
        ...listedHomes.map(
          ({ volume, workspaceId }): PlatformObject => ({
            kind: 'home',
            name: volume.Name,
            workspaceId,
            createdAt: createdAt(volume),
            ...(volume.Labels[labels.owner] && { owner: volume.Labels[labels.owner] }),
            ...(volume.Labels[labels.name] && { workspaceName: volume.Labels[labels.name] }),
          }),
        ),
      ];
    },
    async remove(object) {
      if (object.kind === 'compute') {
        const container = engine.getContainer(object.name);
        const found = await orNull(container.inspect());
        if (!found) return true;
        if (!isStillOurs(found.Config, object)) return false;
        // Without `v`: named volumes stay in any case, and others are not ours.
        return removed(container.remove({ force: true }));
      }
      if (object.kind === 'network') {
        // Docker's own filter finds parts of names.
        const found = (await engine.listNetworks(ours)).find(({ Name }) => Name === object.name);
        if (!found) return true;
        return isStillOurs(found, object) && removeNetworks(engine, object.name);
      }
      if (object.kind === 'home') return false;
      const volume = engine.getVolume(object.name);
      const found = await orNull(volume.inspect());
      if (!found) return true;
      if (!isStillOurs(found, object) || found.Labels?.[labels.role] === 'home') return false;
      if (object.workspaceId !== null) return removed(volume.remove());
      // The record first: without it, a server of that version fills the volume again.
      const uses = await engine.listContainers({ all: true, filters: { volume: [object.name] } });
      if (uses.length > 0) return false;
      return (await removed(engine.getVolume(completeOf(object.name)).remove())) && removed(volume.remove());
    },
    async adopt(home, workspaceId, retainedAt) {
      return (await homes.adopt(home.name, workspaceId, retainedAt)) ? { home: home.name } : null;
    },
  };
}

const suffix = '-complete';
const agentOf = (name: string) => (name.endsWith(suffix) ? name.slice(0, -suffix.length) : name);
const completeOf = (name: string) => `${name}${suffix}`;

const moment = (text: string | undefined) => (text ? new Date(text) : null);
/** Its client does not declare when a volume was created. */
const createdAt = (volume: object) => moment((volume as { CreatedAt?: string }).CreatedAt);
