// The image that brings the agent into pods, as docker/Dockerfile makes it, without a builder.
import { existsSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { makeAgentImage } from '../../agent/container/image.ts';
import { writeArchive } from './archive.ts';
import { importOnce } from './images.ts';
import { buildDir, shortHash } from './layout.ts';
import { requirePackages, run } from './machine.ts';

const agentFolder = fileURLToPath(new URL('../../agent', import.meta.url));

/** One for each state of the agent's sources. Other checkouts may still use theirs. */
const keptArchives = 5;

function removeOld(): void {
  const archives = readdirSync(buildDir)
    .filter((name) => name.startsWith('images-agent-'))
    .map((name) => join(buildDir, name))
    .map((file) => ({ file, at: statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0 }))
    .sort((one, other) => other.at - one.at);
  for (const { file } of archives.slice(keptArchives)) rmSync(file, { force: true });
}

/**
 * Builds the image from the sources as they are, imports it into the node, and returns its name. CDE_TEST_AGENT_IMAGE
 * names one that was built before.
 */
export async function agentTestImage(): Promise<string> {
  if (process.env.CDE_TEST_AGENT_IMAGE) return process.env.CDE_TEST_AGENT_IMAGE;
  const { name, file } = await agentArchive();
  await importOnce(file, [name]);
  return name;
}

/** Builds the image from the sources as they are, as an archive that `docker load` and containerd take. */
export async function agentArchive(): Promise<{ name: string; file: string }> {
  requirePackages('patchelf');
  const work = join(buildDir, `.agent-image-${process.pid}`);
  try {
    await makeAgentImage(work);
    const content = run('sh', ['-c', `cd ${work} && find . -type f | sort | xargs cat | sha256sum`]);
    const version = shortHash(content, agentFolder);
    const name = `cde-test/agent:${version}`;
    const file = join(buildDir, `images-agent-${version}.tar`);
    if (!existsSync(file)) {
      await writeArchive(file, [{ name, layers: [work], config: { User: '65534' } }]);
      removeOld();
    }
    return { name, file };
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
