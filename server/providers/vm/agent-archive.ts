import { randomUUID } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { pack } from 'tar-stream';
import { type AgentSource, agentFiles, hashAgentFiles, packAgentFiles } from '../agent-files.ts';

const prefix = 'agent-';

/** The agent as one compressed file, which virtual machines download. Made at the first request, and kept in `folder`. */
export function makeAgentArchive(source: AgentSource, folder: string) {
  let hashing: Promise<string> | undefined;
  let making: Promise<string> | undefined;

  /** Names the content. */
  const version = () => {
    hashing ??= agentFiles(source)
      .then(hashAgentFiles)
      .catch((error) => {
        hashing = undefined;
        throw error;
      });
    return hashing;
  };

  async function make(): Promise<string> {
    const name = `${prefix}${await version()}.tar.gz`;
    const path = join(folder, name);
    if (await stat(path).catch(() => null)) return path;
    await mkdir(folder, { recursive: true });
    for (const old of await readdir(folder))
      if (old.startsWith(prefix) && old !== name) await rm(join(folder, old), { force: true });
    const draft = join(folder, `${prefix}${randomUUID()}`);
    const archive = pack();
    const written = pipeline(archive, createGzip({ level: 5 }), createWriteStream(draft));
    // Reported below, unless reading fails first.
    written.catch(() => {});
    try {
      await packAgentFiles(archive, await agentFiles(source));
      archive.finalize();
      await written;
      await rename(draft, path);
    } catch (error) {
      archive.destroy(error as Error);
      await rm(draft, { force: true });
      throw error;
    }
    return path;
  }

  return {
    version,
    /** The path of the file. The first call takes seconds. */
    file() {
      making ??= make().catch((error) => {
        making = undefined;
        throw error;
      });
      return making;
    },
  };
}

export type AgentArchive = ReturnType<typeof makeAgentArchive>;
