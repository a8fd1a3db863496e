import type { KubernetesSection } from '@cde/api/templates.ts';
import type { StepContext, WorkspaceSpec } from '../../provider.ts';
import { parseQuantity } from '../../quantity.ts';
import type { KubeObject } from '../api/client.ts';
import type { Connection } from '../api/connections.ts';
import { MoveFailure } from '../objects/failure.ts';
import { applyOne } from './apply.ts';
import { type HomeVolume, volumeOfClaim } from './homes.ts';

/**
 * A claim that never got a volume holds nothing, and its class cannot be changed: it takes another claim. One
 * that was left to the default class may wait for what is now to be left to it too: that is not told apart.
 */
export function hasOtherStorageClass(claim: KubeObject, section: KubernetesSection): boolean {
  const { volumeName, storageClassName } = claim.spec as { volumeName?: string; storageClassName?: string };
  const { phase } = (claim.status ?? {}) as { phase?: string };
  return phase === 'Pending' && !volumeName && storageClassName !== section.storageClass;
}

/** A bound claim cannot change its volume, nor shrink. */
export function homeVolumeOf(claim: KubeObject): HomeVolume {
  const spec = claim.spec as {
    volumeName: string;
    storageClassName?: string;
    resources?: { requests?: { storage?: string } };
  };
  return {
    name: spec.volumeName,
    size: spec.resources?.requests?.storage ?? '1Gi',
    storageClass: spec.storageClassName ?? '',
  };
}

/** Applies the home's claim, larger if the template now wants it so and the storage can. */
export async function applyHome(
  connection: Connection,
  object: KubeObject,
  spec: WorkspaceSpec,
  claim: KubeObject | null,
  context: StepContext,
): Promise<KubeObject> {
  const wanted = spec.template.home.size;
  const bound = claim && volumeOfClaim(claim) ? homeVolumeOf(claim).size : null;
  if (wanted && bound && (parseQuantity(wanted) ?? 0) > (parseQuantity(bound) ?? 0))
    try {
      return await applyOne(connection, {
        ...object,
        spec: { ...(object.spec as object), resources: { requests: { storage: wanted } } },
      });
    } catch (error) {
      if (!(error instanceof MoveFailure) || error.error.code === 'field-conflict') throw error;
      context.log(`the home stays at ${bound}: ${error.error.detail ?? error.message}`, 'warn');
    }
  return applyOne(connection, object);
}

/** Applies the cache's claim: of one that is there the class stays, and the size where it cannot grow. */
export async function applyCache(
  connection: Connection,
  object: KubeObject,
  claim: KubeObject | null,
  context: StepContext,
): Promise<KubeObject> {
  if (!claim) return applyOne(connection, object);
  const there = claim.spec as {
    storageClassName?: string;
    resources?: { requests?: { storage?: string } };
  };
  const wanted = object.spec as { resources: { requests: { storage: string } } };
  const bound = there.resources?.requests?.storage ?? wanted.resources.requests.storage;
  const kept: KubeObject = {
    ...object,
    spec: {
      ...wanted,
      resources: { requests: { storage: bound } },
      ...(there.storageClassName !== undefined && { storageClassName: there.storageClassName }),
    },
  };
  if ((parseQuantity(wanted.resources.requests.storage) ?? 0) <= (parseQuantity(bound) ?? 0))
    return applyOne(connection, kept);
  try {
    return await applyOne(connection, {
      ...kept,
      spec: { ...(kept.spec as object), resources: wanted.resources },
    });
  } catch (error) {
    if (!(error instanceof MoveFailure) || error.error.code === 'field-conflict') throw error;
    context.log(`the builder's cache stays at ${bound}: ${error.error.detail ?? error.message}`, 'warn');
    return applyOne(connection, kept);
  }
}
