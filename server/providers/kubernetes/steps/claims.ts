import type { KubernetesSection } from '@cde/api/template-file.ts';
import type { StepContext, WorkspaceSpec } from '../../provider.ts';
import { parseQuantity } from '../../quantity.ts';
import type { Connection } from '../api/connections.ts';
import type { Kube } from '../api/models.ts';
import { StepFailure } from '../objects/failure.ts';
import { applyOne } from './apply.ts';
import { type HomeVolume, volumeOfClaim } from './homes.ts';

type Claim = Kube<'PersistentVolumeClaim'>;

/**
 * Whether a claim that was never bound has another storage class than the template. The class cannot be changed, but
 * such a claim has no data and can be replaced. One with the default class always counts as different, because the
 * API server has filled in a name.
 */
export function hasOtherStorageClass({ spec, status }: Claim, section: KubernetesSection): boolean {
  return status?.phase === 'Pending' && !spec?.volumeName && spec?.storageClassName !== section.storageClass;
}

/** The volume of a bound claim, which can neither change its volume nor shrink. */
export const homeVolumeOf = ({ spec }: Claim): HomeVolume => ({
  name: spec!.volumeName!,
  size: requestedSize({ spec }) ?? '1Gi',
  storageClass: spec!.storageClassName ?? '',
});

const requestedSize = ({ spec }: Pick<Claim, 'spec'>) => spec?.resources?.requests?.storage;
const bytesOf = (size: string | undefined) => (size === undefined ? 0 : (parseQuantity(size) ?? 0));

const withSize = (claim: Claim, storage: string): Claim => ({
  ...claim,
  spec: { ...claim.spec, resources: { requests: { storage } } },
});

/** Applies a claim with a larger size; null if its storage cannot grow, which is logged. */
async function applyLarger(
  connection: Connection,
  claim: Claim,
  size: { from: string; to: string },
  what: string,
  context: StepContext,
): Promise<Claim | null> {
  try {
    return await applyOne(connection, withSize(claim, size.to));
  } catch (error) {
    if (!(error instanceof StepFailure) || error.error.code === 'field-conflict') throw error;
    context.log(`${what} stays at ${size.from}: ${error.error.detail ?? error.message}`, 'warn');
    return null;
  }
}

/** Applies the home's claim, and expands it if the template asks for more. */
export async function applyHome(
  connection: Connection,
  claim: Claim,
  spec: WorkspaceSpec,
  existing: Claim | null,
  context: StepContext,
): Promise<Claim> {
  const to = spec.template.home.size;
  const from = existing && volumeOfClaim(existing) ? homeVolumeOf(existing).size : null;
  const larger =
    to && from && bytesOf(to) > bytesOf(from)
      ? await applyLarger(connection, claim, { from, to }, 'the home', context)
      : null;
  return larger ?? applyOne(connection, claim);
}

/** Applies the cache's claim, and expands it if the template asks for more. An existing one keeps its class. */
export async function applyCache(
  connection: Connection,
  claim: Claim,
  existing: Claim | null,
  context: StepContext,
): Promise<Claim> {
  if (!existing) return applyOne(connection, claim);
  const to = requestedSize(claim)!;
  const from = requestedSize(existing) ?? to;
  const { storageClassName } = existing.spec ?? {};
  const current = withSize(
    { ...claim, spec: { ...claim.spec, ...(storageClassName !== undefined && { storageClassName }) } },
    from,
  );
  const larger =
    bytesOf(to) > bytesOf(from)
      ? await applyLarger(connection, current, { from, to }, "the builder's cache", context)
      : null;
  return larger ?? applyOne(connection, current);
}
