import { systemErrorReason } from '@cde/api/system-errors.ts';
import { ProviderFailure } from '../failure.ts';
import type { ProviderError } from '../provider.ts';

const hints: Record<string, [code: string, message: string, hint: string]> = {
  ENOSPC: [
    'home-disk-full',
    'The disk that holds the homes is full.',
    'Free space on it, or give the server a larger data directory, then start the workspace again.',
  ],
  EDQUOT: [
    'home-disk-full',
    'The disk quota for the homes is used up.',
    'Free space, or raise the quota, then start the workspace again.',
  ],
  EROFS: [
    'home-read-only',
    'The disk that holds the homes is read-only.',
    'Mount it for writing (a fault of the disk may have made it read-only), then start the workspace again.',
  ],
  EACCES: [
    'home-not-permitted',
    'The server may not write where the homes are.',
    "Give the server's user the data directory, then start the workspace again.",
  ],
};
hints.EPERM = hints.EACCES!;

/** Converts a thrown value to the reason of a failed move. `doing`: "creating the home". */
export function toProviderError(thrown: unknown, doing: string): ProviderError {
  if (thrown instanceof ProviderFailure) return thrown.error;
  const error = thrown as NodeJS.ErrnoException;
  const known = hints[error?.code ?? ''];
  const detail = `While ${doing}: ${error?.message ?? String(thrown)}`;
  const reason = systemErrorReason(thrown);
  if (known) return { code: known[0], message: known[1], detail, hint: known[2], fault: 'system' };
  return {
    code: 'local-provider-failed',
    message: reason
      ? `The machine refused while ${doing}: ${reason}.`
      : `The local provider failed while ${doing}.`,
    detail,
    fault: 'system',
  };
}
