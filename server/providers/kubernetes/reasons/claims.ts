import type { Kube } from '../api/models.ts';
import { type EventRecord, newest, type Reason } from './reading.ts';

type Claim = Kube<'PersistentVolumeClaim'>;

const relevantReasons = new Set([
  'ProvisioningFailed',
  'FailedBinding',
  'VolumeMismatch',
  'ExternalProvisioning',
]);

/**
 * Why the first claim that has a known cause has no volume. A claim that waits for its first pod has none: the cause is what
 * keeps that pod from a node.
 */
export function explainClaims(claims: Claim[], events: EventRecord[]): Reason | null {
  for (const claim of claims) {
    const reason = explainClaim(claim, events);
    if (reason) return reason;
  }
  return null;
}

function explainClaim(claim: Claim, events: EventRecord[]): Reason | null {
  const { name, uid, deletionTimestamp } = claim.metadata;
  const phase = claim.status?.phase;
  if (phase === 'Lost')
    return {
      code: 'volume-lost',
      message: `The volume of the claim ${name} is gone.`,
      detail: newest(events, (event) => event.of.uid === uid && event.warning)?.message ?? '',
      hint: 'Ask an administrator to restore it from a backup or a snapshot. The workspace does not start without it.',
      fault: 'system',
      fatal: true,
    };
  if (deletionTimestamp)
    return {
      code: 'claim-deleting',
      message: `The volume claim ${name} is being deleted.`,
      detail: (claim.metadata.finalizers ?? []).length
        ? `It waits for: ${claim.metadata.finalizers!.join(', ')}.`
        : '',
      hint: 'It was deleted, and disappears once nothing uses it. Its class may retain the volume.',
      fault: 'system',
      fatal: false,
    };
  if (phase === 'Bound') return null;
  const { volumeName } = claim.spec ?? {};
  const mine = (event: EventRecord) => event.of.uid === uid && relevantReasons.has(event.reason);
  // A failing provisioner also keeps reporting that it is working on it.
  const event = newest(events, (one) => mine(one) && one.warning) ?? newest(events, mine);
  if (!event) return null;
  const said = event.message;
  const base = { detail: said, fault: 'system' as const, fatal: false };

  const missing = /storageclass(?:\.storage\.k8s\.io)? "([^"]*)" not found/.exec(said);
  if (missing)
    return {
      ...base,
      code: 'storage-class-missing',
      message: `The cluster has no storage class ${missing[1]}, which the claim ${name} asks for.`,
      hint: 'Use an existing one in the template (kubernetes.storageClass), or omit it to use the default: kubectl get storageclass.',
      fault: 'user',
      fatal: true,
    };
  if (/no storage class is set/.test(said)) return withoutClass(claim, said);
  if (/already bound to a different claim|Cannot bind to requested volume/.test(said))
    return {
      ...base,
      code: 'volume-taken',
      message: `The volume ${volumeName ?? ''} cannot be given to the claim ${name}.`.replace('  ', ' '),
      hint: 'Ask an administrator which claim holds it: kubectl get pv.',
      fatal: true,
    };
  if (event.reason === 'ExternalProvisioning')
    return awaitingProvisioner(claim, /provisioner '([^']+)'/.exec(said)?.[1] ?? 'its provisioner', said);
  if (/ResourceExhausted|quota|insufficient (free )?(capacity|space)|no space left|not enough/i.test(said))
    return {
      ...base,
      code: 'storage-full',
      message: `The storage has no room for the volume of the claim ${name}${sizeOf(claim)}.`,
      hint: 'Ask an administrator to add storage. The cluster retries by itself.',
    };
  return {
    ...base,
    code: 'volume-not-provisioned',
    message: `The volume of the claim ${name}${sizeOf(claim)} cannot be created.`,
    hint: 'The cluster retries by itself. Ask an administrator to check the provisioner.',
  };
}

function sizeOf(claim: Claim): string {
  const size = claim.spec?.resources?.requests?.storage;
  return size ? ` (${size})` : '';
}

const provisionerOf = (claim: Claim): string | undefined =>
  claim.metadata.annotations?.['volume.kubernetes.io/storage-provisioner'] ??
  claim.metadata.annotations?.['volume.beta.kubernetes.io/storage-provisioner'];

/**
 * The scheduler reports an unbound claim, and no event says why, because only warnings are watched. The claim itself names the
 * provisioner of its volume.
 */
export function unboundClaim(claims: Claim[], message: string): Reason {
  const unbound = claims.filter((claim) => claim.status?.phase !== 'Bound');
  const [first] = unbound;
  if (first && !first.spec?.storageClassName) return withoutClass(first, message);
  const provisioner = first && provisionerOf(first);
  if (first && provisioner) return awaitingProvisioner(first, provisioner, message);
  return {
    code: 'volume-pending',
    message: `The volume of the claim ${unbound.map(({ metadata }) => metadata.name).join(', ')} does not exist yet.`,
    detail: message,
    hint: 'If it does not appear, ask an administrator whether the provisioner of its storage class runs.',
    fault: 'system',
    fatal: false,
  };
}

function withoutClass(claim: Claim, detail: string): Reason {
  const { storageClassName } = claim.spec ?? {};
  return {
    code: 'storage-class-missing',
    message:
      storageClassName === ''
        ? `No volume is free for the claim ${claim.metadata.name}, and its storage class is turned off.`
        : `The claim ${claim.metadata.name} names no storage class, and the cluster has no default one.`,
    detail,
    hint: 'Ask an administrator to set a default storage class, or name one in the template (kubernetes.storageClass).',
    fault: 'system',
    fatal: false,
  };
}

function awaitingProvisioner(claim: Claim, provisioner: string, detail: string): Reason {
  return {
    code: 'volume-pending',
    message: `The claim ${claim.metadata.name} is waiting for a volume from ${provisioner}.`,
    detail,
    hint: 'If it does not appear, ask an administrator whether the provisioner runs.',
    fault: 'system',
    fatal: false,
  };
}
