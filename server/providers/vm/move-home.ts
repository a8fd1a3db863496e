import { ProviderFailure } from '../failure.ts';
import type { StepContext, WorkspaceSpec } from '../provider.ts';
import type { Begun, Volume } from './cloud.ts';
import { digest } from './labels.ts';
import { type CloudParts, ownLabels } from './parts.ts';

/**
 * One step towards a home in another zone: a volume is in one zone for good, so it is copied through a snapshot. The old one
 * is deleted once its copy is complete and has taken its place.
 */
export async function moveHome(
  parts: CloudParts,
  spec: WorkspaceSpec,
  home: Volume,
  zone: string,
  context: StepContext,
): Promise<{ home: Volume } | ({ waitingFor: string } & Begun)> {
  const { cloud, homes, installation } = parts;
  const from = home.id;
  const waitingFor = `The home is being moved to ${zone}.`;
  const copy = (await homes.list('home-copy')).find(({ labels }) => labels.from === from);
  if (copy && copy.zone !== zone) {
    // The template has changed its mind.
    await cloud.deleteVolume(copy.id);
    return { waitingFor };
  }
  const [snapshot] = await cloud.snapshots({ roles: ['move'], from });
  if (copy?.state === 'ready') return { home: await takePlace(parts, spec, home, copy, context) };
  if (copy) return { waitingFor };
  if (!snapshot) {
    context.log(`home: moving from ${home.zone} to ${zone} through a snapshot`);
    const begun = await cloud.createSnapshot(home, {
      key: digest(installation, from, zone, 'move'),
      description: `Home of ${spec.owner}/${spec.name} on its way to ${zone}`,
      labels: { ...ownLabels(parts, spec, 'move'), from },
    });
    return { waitingFor, ...begun };
  }
  if (snapshot.state === 'failed') {
    await cloud.deleteSnapshot(snapshot.id);
    throw new ProviderFailure({
      code: parts.kind.codes.refused,
      message: `${parts.kind.title} could not copy the home to ${zone}. It is unchanged.`,
      detail: snapshot.progress,
      hint: 'Start the workspace again.',
      fault: 'system',
    });
  }
  if (snapshot.state !== 'ready') return { waitingFor: `${waitingFor.slice(0, -1)}: ${snapshot.progress}.` };
  const begun = await cloud.createVolume({
    spec,
    zone,
    gibibytes: home.gibibytes,
    snapshot: snapshot.id,
    key: digest(installation, from, zone, snapshot.id),
    labels: { ...ownLabels(parts, spec, 'home-copy'), from },
  });
  return { waitingFor, ...begun };
}

async function takePlace(
  parts: CloudParts,
  spec: WorkspaceSpec,
  home: Volume,
  copy: Volume,
  context: StepContext,
): Promise<Volume> {
  const { cloud } = parts;
  const { used = '', attached = '' } = home.labels;
  const labels = { ...ownLabels(parts, spec, 'home'), used, attached };
  // From here on, the copy is found instead of the old one, because it names that.
  await cloud.labelVolume(copy, labels);
  await cloud.labelVolume(home, { role: 'old-home' });
  await cloud.deleteVolume(home.id);
  for (const { id } of await cloud.snapshots({ roles: ['move'], from: home.id }))
    await cloud.deleteSnapshot(id);
  context.log(`home: moved from ${home.zone} to ${copy.zone}`);
  return { ...copy, labels: { ...copy.labels, ...labels }, version: undefined };
}
