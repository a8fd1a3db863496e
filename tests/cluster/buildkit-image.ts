// An image with BuildKit that behaves like moby/buildkit: `buildkitd` is the entry point, as root or, under `rootlesskit`, as
// user 1000. For tests of builders. `up` does not import it, because building BuildKit takes minutes.
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { archive, debootstrap, importOnce } from './images.ts';
import { shortHash } from './layout.ts';
import { logProgress, run } from './machine.ts';
import { tool } from './tool.ts';

const buildkitImage = 'cde-test/buildkit:1';

const programs = ['buildkitd', 'buildctl', 'rootlesskit'] as const;

/** Builds the image unless the cache has it, imports it into the cluster, and returns its name. */
export async function importBuildkitImage(): Promise<string> {
  const paths: string[] = [];
  for (const name of programs) paths.push(await tool(name));
  const file = await archive(`buildkit-${shortHash(...paths)}`, async (work) => {
    logProgress('Building the BuildKit image (once)');
    const root = join(work, 'root');
    await debootstrap(root, 'ca-certificates,git,runc,uidmap,fuse-overlayfs,iproute2,procps');
    run('chroot', [root, 'useradd', '--create-home', '--uid', '1000', 'user']);
    for (const path of paths) cpSync(path, join(root, 'usr/bin', path.split('/').at(-1)!));
    return [{ name: buildkitImage, layers: [root], config: { Entrypoint: ['buildkitd'] } }];
  });
  await importOnce(file, [buildkitImage]);
  return buildkitImage;
}
