import type { ProviderError } from '../provider.ts';
import { GceError, isWithoutCapacity, messageOf } from './client.ts';

type Known = Omit<ProviderError, 'detail'>;

export const noCapacityCode = 'gcp-no-capacity';

const noCapacity: Known = {
  code: noCapacityCode,
  message: 'Google Compute has no free capacity for this machine type in this zone at the moment.',
  hint: 'Start the workspace again later, or choose another machine type or zone: the home is moved there.',
  fault: 'system',
};

const known: [test: (error: GceError) => boolean, error: Known][] = [
  [isWithoutCapacity, noCapacity],
  [
    ({ reason }) => /^(quotaExceeded|QUOTA_EXCEEDED|limitExceeded|IP_SPACE_EXHAUSTED\w*)$/.test(reason),
    {
      code: 'quota-exceeded',
      message: 'A quota of the Google Cloud project leaves no room for this workspace.',
      hint: 'Stop another workspace, or ask an administrator to raise the quota.',
      fault: 'system',
    },
  ],
  [
    ({ status, reason }) =>
      status === 401 || status === 403 || /^(forbidden|PERMISSIONS_ERROR)$/.test(reason),
    {
      code: 'gcp-not-authorized',
      message: 'Google Cloud does not permit this server what it needs.',
      hint: 'Check the credentials of the server and their role: docs/gce-provider.md lists the permissions.',
      fault: 'system',
    },
  ],
  [
    ({ message }) => /machineType|machine type/i.test(message),
    {
      code: 'instance-type-not-supported',
      message: 'Google Compute cannot run this machine type like this.',
      hint: 'Change gce.machineType, gce.diskType or gce.zones in the template.',
      fault: 'user',
    },
  ],
  [
    ({ status, reason }) =>
      status === 400 || status === 404 || /^(notFound|invalid\w*|badRequest)$/i.test(reason),
    {
      code: 'gcp-setting-invalid',
      message: 'Google Compute does not know what the template names, or refuses its value.',
      hint: "Correct the template's gce section.",
      fault: 'user',
    },
  ],
];

/** A refusal in words for the developer. */
export function refusal(error: unknown): ProviderError {
  if (!(error instanceof GceError))
    return {
      code: 'gcp-refused',
      message: 'Google Compute refused a request.',
      detail: messageOf(error),
      fault: 'system',
    };
  const detail = `${error.reason || error.status}: ${error.message}`;
  const found = known.find(([test]) => test(error))?.[1];
  return found
    ? { ...found, detail }
    : { code: 'gcp-refused', message: 'Google Compute refused a request.', detail, fault: 'system' };
}
