import type { ContainerStatus } from '../api/models.ts';
import type { PodSnapshot, Reason } from './reading.ts';

const imageReasons = new Set([
  'ErrImagePull',
  'ImagePullBackOff',
  'InvalidImageName',
  'ErrImageNeverPull',
  'ImageInspectError',
  'RegistryUnavailable',
  'SignatureValidationFailed',
]);

/**
 * Messages of registries and container runtimes, and what they mean; the first match applies. A registry that hides private
 * images also answers "denied" if an image does not exist.
 */
const pullErrors: {
  pattern: RegExp;
  code: string;
  because: string;
  hint: string;
  fault: Reason['fault'];
  fatal: boolean;
}[] = [
  {
    pattern: /no space left on device|disk quota exceeded/i,
    code: 'image-no-disk',
    because: 'the disk of the node is full',
    hint: 'Ask an administrator to free space on the node. The cluster retries by itself.',
    fault: 'system',
    fatal: false,
  },
  {
    pattern: /toomanyrequests|429 Too Many Requests|rate limit/i,
    code: 'image-rate-limited',
    because: 'the registry limits how often images are pulled',
    hint: 'It passes by itself. A pull secret of an account, or a mirror, avoids it.',
    fault: 'system',
    fatal: false,
  },
  {
    pattern:
      /no match for platform|no matching manifest|does not provide any platform|image operating system/i,
    code: 'image-platform',
    because: 'it is not made for the architecture of the node',
    hint: 'Build the image for it as well, or select other nodes with nodeSelector.',
    fault: 'user',
    fatal: true,
  },
  {
    pattern: /x509|certificate|tls: |gave HTTP response to HTTPS client/i,
    code: 'image-registry-untrusted',
    because: 'the node does not trust the registry',
    hint: "An administrator has to give the nodes the registry's certificate authority.",
    fault: 'system',
    fatal: false,
  },
  {
    pattern:
      /no such host|connection refused|i\/o timeout|no route to host|network is unreachable|connection reset|TLS handshake timeout|deadline exceeded|server misbehaving|\bEOF\b|50[0234] /i,
    code: 'image-registry-unreachable',
    because: 'its registry does not answer',
    hint: "Check the registry's name in the template, and whether the nodes can reach it. The cluster retries by itself.",
    fault: 'system',
    fatal: false,
  },
  {
    pattern:
      /unauthorized|denied|forbidden|authentication required|authorization failed|no basic auth|40[13] /i,
    code: 'image-no-access',
    because: 'the registry refuses it: it does not exist, or may not be pulled with these credentials',
    hint: "Check the image's name; if it is private, name a pull secret in the template (pullSecrets).",
    fault: 'user',
    fatal: true,
  },
  {
    pattern: /not found|manifest unknown|name unknown|404/i,
    code: 'image-not-found',
    because: 'the registry has no such image or tag',
    hint: "Check the image's name and tag in the template.",
    fault: 'user',
    fatal: true,
  },
];

/** Why the image of a waiting container cannot be pulled; null if the container waits for something else. */
export function explainImage(container: ContainerStatus, pod: PodSnapshot): Reason | null {
  const waiting = container.state?.waiting;
  if (!waiting?.reason || !imageReasons.has(waiting.reason)) return null;
  const image = pod.specOf(container.name)?.image ?? container.image ?? '';
  const said = waiting.message ?? '';
  if (waiting.reason === 'InvalidImageName')
    return {
      code: 'image-invalid-name',
      message: `${image} is not the name of an image.`,
      detail: said,
      hint: 'Write it as REGISTRY/NAME:TAG, in lower case, in the template.',
      fault: 'user',
      fatal: true,
    };
  if (waiting.reason === 'ErrImageNeverPull')
    return {
      code: 'image-not-on-node',
      message: `The image ${image} is not on the node${onNode(pod)}, and must not be pulled.`,
      detail: said,
      hint: 'Load it onto the nodes, or set pullPolicy: IfNotPresent in the template.',
      fault: 'user',
      fatal: true,
    };
  if (waiting.reason === 'SignatureValidationFailed')
    return {
      code: 'image-signature',
      message: `The image ${image} is refused by the node: its signature is not valid.`,
      detail: said,
      hint: 'Use an image that is signed as the cluster requires.',
      fault: 'user',
      fatal: true,
    };
  // "Back-off pulling image" alone only says that there was an earlier error.
  if (said === '' || /^Back-off pulling image "[^"]*"$/.test(said))
    return {
      code: 'image-not-pulled',
      message: `The image ${image} cannot be pulled.`,
      ...(said && { detail: said }),
      fault: 'system',
      fatal: false,
    };
  const known = pullErrors.find(({ pattern }) => pattern.test(said.replace(image, '')));
  const secrets = (pod.spec.imagePullSecrets ?? []).flatMap(({ name }) => name ?? []);
  return {
    code: known?.code ?? 'image-not-pulled',
    message: `The image ${image} cannot be pulled${known ? `: ${known.because}` : ''}.`,
    detail: [
      cause(said),
      ...(known?.code === 'image-no-access' && secrets.length > 0
        ? [`Pull secrets that were used: ${secrets.join(', ')}.`]
        : []),
    ].join(' '),
    hint: known?.hint ?? 'The cluster retries by itself.',
    fault: known?.fault ?? 'system',
    fatal: known?.fatal ?? false,
  };
}

const onNode = (pod: PodSnapshot) => (pod.spec.nodeName ? ` ${pod.spec.nodeName}` : '');

/** The runtime's own message, without the kubelet's prefixes. */
function cause(said: string): string {
  return said
    .replace(/^Back-off pulling image "[^"]*": /, '')
    .replace(/^ErrImagePull: /, '')
    .replace(/^rpc error: code = \w+ desc = /, '');
}
