import type { CloudVolumes, Snapshot, Volume } from '../vm/cloud.ts';
import type { Role } from '../vm/labels.ts';
import {
  accept,
  alreadyExists,
  type GceClient,
  GceError,
  inUse,
  messageOf,
  named,
  nameIn,
  notFound,
  type Operation,
  orNull,
  path,
} from './client.ts';
import { fromLabels, objectName, toLabels, withLabels } from './names.ts';
import type { Disk, DiskSnapshot } from './resources.ts';
import { gceSectionOf } from './section.ts';

/** Changes of labels take a second. */
const labelMs = 15_000;
/** How long a refusal is waited for of what nothing asks about later. It comes early. */
const refusalMs = 2_000;

const states: Record<Disk['status'], Volume['state']> = {
  CREATING: 'creating',
  RESTORING: 'creating',
  READY: 'ready',
  FAILED: 'failed',
  UNAVAILABLE: 'failed',
  DELETING: 'deleting',
};
const dateOf = (text: string | undefined) => (text === undefined ? null : new Date(text));

/** Names of disks are unique in their zone only. */
export const volumeId = (diskUrl: string | undefined): string => {
  const parts = (diskUrl ?? '').split('/');
  return `${parts.at(-3)}/${parts.at(-1)}`;
};
const at = (id: string) => {
  const [zone = '', name = ''] = id.split('/');
  return path`/zones/${zone}/disks/${name}`;
};
const volumeOf = (disk: Disk): Volume => ({
  id: `${nameIn(disk.zone)}/${disk.name}`,
  zone: nameIn(disk.zone),
  gibibytes: Number(disk.sizeGb),
  state: states[disk.status],
  attachedTo: disk.users?.length ? nameIn(disk.users[0]) : null,
  createdAt: dateOf(disk.creationTimestamp),
  labels: fromLabels(disk.labels),
  version: disk.labelFingerprint,
});
const snapshotOf = ({ name, status, creationTimestamp, labels }: DiskSnapshot): Snapshot => ({
  id: name,
  state: status === 'READY' ? 'ready' : status === 'FAILED' ? 'failed' : 'creating',
  progress: status === 'FAILED' ? 'The snapshot failed' : status.toLowerCase(),
  createdAt: dateOf(creationTimestamp),
  labels: fromLabels(labels),
});
const hasRole = (roles: readonly Role[], from?: string) => (object: { labels: Volume['labels'] }) =>
  object.labels.role !== undefined &&
  roles.includes(object.labels.role) &&
  (from === undefined || object.labels.from === from);

/** Homes as zonal persistent disks, and their snapshots. */
export function makeVolumes(client: GceClient, installation: string): CloudVolumes {
  const get = (id: string) => orNull(client.get<Disk>(at(id)));

  /** Starts slow work. */
  async function begin(call: Promise<Operation>, ...fine: RegExp[]): Promise<boolean> {
    const done = (async () => client.settle(await call, refusalMs))();
    return (await accept(done, ...fine)) !== null;
  }

  return {
    async volume(id) {
      const found = await get(id);
      return found && volumeOf(found);
    },
    async volumes({ roles, workspace, from }) {
      const filter = withLabels({ installation, ...(workspace !== undefined && { workspace }) });
      const found = await client.list<Disk>('/aggregated/disks', { filter, field: 'disks' });
      return found.map(volumeOf).filter(hasRole(roles, from));
    },
    async createVolume({ spec, key, zone, gibibytes, labels, snapshot }) {
      const section = gceSectionOf(spec)!;
      const { kmsKey } = section;
      const call = client.post(path`/zones/${zone}/disks`, {
        name: objectName(spec, 'home', key),
        description: `Home of ${spec.owner}/${spec.name}`,
        sizeGb: String(gibibytes),
        type: path`zones/${zone}/diskTypes/${section.diskType}`,
        labels: { ...(section.labels as Record<string, string>), ...toLabels(labels) },
        ...(snapshot !== undefined && { sourceSnapshot: path`global/snapshots/${snapshot}` }),
        ...(kmsKey !== undefined && { diskEncryptionKey: { kmsKeyName: kmsKey } }),
      });
      return named(await accept(call, alreadyExists));
    },
    async labelVolume(volume, changes) {
      const disk = await get(volume.id);
      if (!disk || disk.status === 'DELETING') return false;
      if (volume.version !== undefined && volume.version !== disk.labelFingerprint)
        throw new GceError(412, 'conditionNotMet', `the labels of ${volume.id} have changed`);
      const labels = { ...disk.labels, ...toLabels(changes) };
      for (const [key, value] of Object.entries(labels)) if (value === '') delete labels[key];
      // Refused if the labels have changed meanwhile.
      const call = client.post(`${at(volume.id)}/setLabels`, {
        labels,
        labelFingerprint: disk.labelFingerprint,
      });
      const operation = await accept(call, notFound);
      if (operation === null) return false;
      if (await client.settle(operation, labelMs)) return true;
      throw new GceError(412, 'resourceNotReady', `the labels of the volume ${volume.id} are being changed`);
    },
    async deleteVolume(id) {
      try {
        await begin(client.delete(at(id)), notFound);
        return true;
      } catch (error) {
        if (error instanceof GceError && inUse.test(error.reason)) return false;
        throw error;
      }
    },
    async growVolume({ id }, gibibytes) {
      try {
        await begin(client.post(`${at(id)}/resize`, { sizeGb: String(gibibytes) }));
        return null;
      } catch (error) {
        // Some kinds of disk can be changed once in some hours.
        if (error instanceof GceError && error.status === 400) return messageOf(error);
        throw error;
      }
    },
    async snapshots({ roles, from }) {
      const filter = withLabels({ installation, ...(from !== undefined && { from }) });
      const found = await client.list<DiskSnapshot>('/global/snapshots', { filter });
      return found
        .filter(({ status }) => status !== 'DELETING')
        .map(snapshotOf)
        .filter(hasRole(roles, from));
    },
    async createSnapshot(volume, { key, description, labels }) {
      const call = client.post(`${at(volume.id)}/createSnapshot`, {
        name: objectName(labels, 'home', key),
        description,
        labels: toLabels(labels),
      });
      return named(await accept(call, alreadyExists));
    },
    async deleteSnapshot(id) {
      try {
        await begin(client.delete(path`/global/snapshots/${id}`), notFound);
        return true;
      } catch (error) {
        if (error instanceof GceError && inUse.test(error.reason)) return false;
        throw error;
      }
    },
  };
}
