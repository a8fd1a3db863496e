import type { ProviderError } from '../provider.ts';
import { messageOf, statusOf } from './client.ts';

const known: [pattern: RegExp, error: Omit<ProviderError, 'detail'>][] = [
  [
    /no space left|disk quota exceeded|not enough space/i,
    {
      code: 'engine-disk-full',
      message: 'A storage pool of the Incus server is full.',
      hint: 'Free space on it: incus storage info POOL shows how much it has.',
      fault: 'system',
    },
  ],
  [
    /reached maximum|maximum number|limits\.\w+.*(project|exceed)|exceed.*(project|limit)/i,
    {
      code: 'quota-exceeded',
      message: 'The limits of the Incus project leave no room for this workspace.',
      hint: 'Stop or delete another workspace, or raise the limits: incus project edit PROJECT.',
      fault: 'user',
    },
  ],
  [
    /image not provided|image.*(not found|couldn't be found|doesn't exist)|(alias|fingerprint).*(not found|doesn't exist)|requested image/i,
    {
      code: 'image-not-found',
      message: 'There is no such image on the Incus server or the image server, or none of this type.',
      hint: 'Check incus.image, incus.imageServer and incus.type in the template; incus image list shows what there is.',
      fault: 'user',
    },
  ],
  [
    /no such host|dial tcp|i\/o timeout|tls handshake|connection refused/i,
    {
      code: 'image-registry-unreachable',
      message: 'The Incus server cannot reach the image server.',
      hint: 'Check incus.imageServer, and the network of the Incus server.',
      fault: 'system',
    },
  ],
  [
    /storage pool.*not found|pool not found/i,
    {
      code: 'incus-pool-missing',
      message: 'The Incus server has no such storage pool.',
      hint: 'Change incus.pool in the template; incus storage list shows what there is.',
      fault: 'user',
    },
  ],
  [
    /cluster member|no suitable/i,
    {
      code: 'incus-no-member',
      message: 'No member of the Incus cluster can take the workspace.',
      hint: 'Check incus cluster list, or change incus.target in the template.',
      fault: 'system',
    },
  ],
  [
    /limits\.|invalid (value|size|cpu|config)|set cpu|memory limit/i,
    {
      code: 'limits-refused',
      message: "The Incus server refused the template's limits.",
      hint: "Change the limits in the template's incus section.",
      fault: 'user',
    },
  ],
  [
    /in use|already exists|busy/i,
    {
      code: 'incus-refused',
      message: 'The Incus server refused a request, because something else uses what it is about.',
      hint: 'Try again.',
      fault: 'system',
    },
  ],
];

/** A refusal in words for the developer. */
export function refusal(error: unknown): ProviderError {
  const detail = messageOf(error);
  const status = statusOf(error);
  if (status === 401 || status === 403)
    return {
      code: 'incus-not-authorized',
      message: 'The Incus server does not permit this server what it needs.',
      detail,
      hint: 'Add its certificate to the trust store: incus config trust add-certificate client.crt. A restricted one needs the project of the template.',
      fault: 'system',
    };
  const found = known.find(([pattern]) => pattern.test(detail));
  return found
    ? { ...found[1], detail }
    : { code: 'incus-refused', message: 'The Incus server refused a request.', detail, fault: 'system' };
}
