import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Pack } from 'tar-stream';
import { ProviderFailure } from './failure.ts';

/** Where the agent is in every workspace that has a root file system of its own. */
export const agentFolder = '/opt/cde';

/** This server's own bundle and Node: for images with glibc, of this server's processor. */
export interface AgentSource {
  folder: string;
  node: string;
}

export interface AgentFile {
  name: string;
  path: string;
  mode: number;
}

/** What has to be in `agentFolder`. `hint`: what else an admin can do if it is not built. */
export async function agentFiles({ folder, node }: AgentSource, hint = ''): Promise<AgentFile[]> {
  const found = await readdir(folder).catch((): string[] => []);
  if (!found.includes('enter.mjs'))
    throw new ProviderFailure({
      code: 'agent-not-installed',
      message: `The agent is not built: ${folder} has no enter.mjs.`,
      hint: `Run node scripts/build-agent.mjs${hint}.`,
      fault: 'system',
    });
  const names = found.filter((name) => /\.(mjs|node)$/.test(name)).sort();
  return [
    ...names.map((name) => ({ name, path: join(folder, name), mode: 0o644 })),
    { name: 'node', path: node, mode: 0o755 },
  ];
}

/** Names the content of the files. */
export async function hashAgentFiles(files: readonly AgentFile[]): Promise<string> {
  const hash = createHash('sha256');
  for (const { name, path } of files) {
    hash.update(`${name} ${(await stat(path)).size}\n`);
    hash.update(name === 'node' ? process.version : await readFile(path));
  }
  return hash.digest('hex').slice(0, 16);
}

/** Adds the files to an archive, below `prefix`. */
export async function packAgentFiles(archive: Pack, files: readonly AgentFile[], prefix = ''): Promise<void> {
  for (const { name, path, mode } of files) {
    const { size } = await stat(path);
    await new Promise<void>((resolve, reject) => {
      const entry = archive.entry({ name: prefix + name, size, mode }, (error) =>
        error ? reject(error) : resolve(),
      );
      createReadStream(path).on('error', reject).pipe(entry);
    });
  }
}
