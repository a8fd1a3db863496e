import type { IncusSection } from '@cde/api/template-file.ts';

/** Where the `incus` command finds images that are named `images:…`. */
const publicServer = 'https://images.linuxcontainers.org';

/** The source of an instance: an image of the server itself by alias or fingerprint, or one that it downloads. */
export function imageSource({ image, imageServer }: Pick<IncusSection, 'image' | 'imageServer'>) {
  const isPublic = image.startsWith('images:');
  const server = imageServer ?? (isPublic ? publicServer : undefined);
  const name = isPublic ? image.slice('images:'.length) : image;
  const isFingerprint = /^[0-9a-f]{12,64}$/.test(name);
  return {
    type: 'image',
    ...(isFingerprint ? { fingerprint: name } : { alias: name }),
    ...(server !== undefined && { mode: 'pull', server, protocol: 'simplestreams' }),
  };
}
