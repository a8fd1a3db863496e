// Writes images as the archive that `docker save` writes and containerd imports, from folders of files.
import { createHash } from 'node:crypto';
import { createReadStream, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { runAsync } from './machine.ts';

/** A layer is a folder whose content is placed over the layers below it. */
export interface ImageRecipe {
  /** `name:tag`. */
  name: string;
  /** Folders, lowest first. Images of one archive share the folders that they have in common. */
  layers: string[];
  config: {
    Env?: string[];
    Cmd?: string[];
    Entrypoint?: string[];
    User?: string;
    WorkingDir?: string;
    Labels?: { [name: string]: string };
  };
}

const sha256 = async (file: string): Promise<string> => {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
};

const tar = ['--numeric-owner', '--sort=name', '--mtime=@1700000000', '--format=gnu'];

/** Writes one archive with all the images to `file`, which appears complete or not at all. */
export async function writeArchive(file: string, recipes: ImageRecipe[]): Promise<void> {
  const draft = join(dirname(file), `.writing-${basename(file)}-${process.pid}`);
  const work = join(draft, 'content');
  mkdirSync(work, { recursive: true });
  try {
    const layers = new Map<string, { file: string; digest: string }>();
    for (const folder of new Set(recipes.flatMap((recipe) => recipe.layers))) {
      const name = `layer-${layers.size}.tar`;
      // Not every container can create device nodes, and the runtime creates its own.
      await runAsync('tar', [...tar, '--exclude=./dev/*', '-C', folder, '-cf', join(work, name), '.']);
      layers.set(folder, { file: name, digest: await sha256(join(work, name)) });
    }
    const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64';
    const manifest = recipes.map((recipe) => {
      const own = recipe.layers.map((folder) => layers.get(folder)!);
      const config = JSON.stringify({
        architecture,
        os: 'linux',
        created: '2023-11-14T22:13:20Z',
        config: {
          Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
          ...recipe.config,
        },
        rootfs: { type: 'layers', diff_ids: own.map((layer) => `sha256:${layer.digest}`) },
        history: own.map(() => ({ created: '2023-11-14T22:13:20Z', created_by: 'tests/cluster' })),
      });
      const configFile = `${createHash('sha256').update(config).digest('hex')}.json`;
      writeFileSync(join(work, configFile), config);
      return { Config: configFile, RepoTags: [recipe.name], Layers: own.map((layer) => layer.file) };
    });
    writeFileSync(join(work, 'manifest.json'), JSON.stringify(manifest));
    await runAsync('tar', [...tar, '-C', work, '-cf', join(draft, 'archive.tar'), '.']);
    renameSync(join(draft, 'archive.tar'), file);
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
}
