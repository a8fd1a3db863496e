import { pack } from 'tar-stream';
import { type AgentSource, agentFiles, hashAgentFiles, packAgentFiles } from '../agent-files.ts';
import { accept, alreadyThere, type IncusClient, orNull, path } from './client.ts';
import { keys } from './names.ts';
import type { HomePlace } from './state.ts';

interface Volume {
  config: Record<string, string>;
  used_by: string[];
}

const nameFor = (version: string, kind: 'container' | 'virtual-machine') =>
  `cde-agent-${version}${kind === 'container' ? '' : '-vm'}`;

/**
 * Puts the agent on the server: a volume that all instances of a project mount read-only, so that a start copies nothing.
 * Its name has a hash of the content; a new version of this server imports a new one.
 */
export function makeAgentVolumes(source: AgentSource, installation: string) {
  let hashing: Promise<string> | undefined;
  const hash = () => {
    hashing ??= agentFiles(source)
      .then(hashAgentFiles)
      .catch((error) => {
        hashing = undefined;
        throw error;
      });
    return hashing;
  };

  return {
    /** The names of the volumes that this server uses. */
    async names(): Promise<string[]> {
      const current = await hash();
      return [nameFor(current, 'container'), nameFor(current, 'virtual-machine')];
    },
    /**
     * The name of the complete volume; null while another server imports it. Takes seconds when it has to be imported.
     * Virtual machines have one of their own, because files of a volume have the owners that containers see, or the
     * machine's, but not both.
     */
    async ensure(
      client: IncusClient,
      { project, pool, member }: Omit<HomePlace, 'name'>,
      kind: 'container' | 'virtual-machine',
      { isBusy, creator }: { isBusy: (name: string) => Promise<boolean>; creator: string },
    ): Promise<string | null> {
      const name = nameFor(await hash(), kind);
      const at = path`/1.0/storage-pools/${pool}/volumes/custom/${name}`;
      const query = { project, target: member };
      const found = await orNull(client.get<Volume>(at, query));
      if (found?.config[keys.complete]) return name;
      if (found) {
        if (await isBusy(name)) return null;
        // Between its import and its mark by another server; or of one that was killed, when Incus was as well.
        if (found.config[keys.creator] === creator)
          return (await markComplete(client, at, query)) ? name : null;
        await accept(client.run('DELETE', at, { query }), 404, 400);
        return null;
      }
      const archive = await archiveOf(source, {
        name,
        pool,
        config: { [keys.installation]: installation, [keys.role]: 'agent', [keys.creator]: creator },
      });
      const imported = client.run('POST', path`/1.0/storage-pools/${pool}/volumes/custom`, {
        query,
        body: archive,
        headers: { 'content-type': 'application/octet-stream', 'x-incus-name': name },
      });
      // Another server was first.
      imported.catch(() => archive.destroy());
      await accept(imported, 409, alreadyThere);
      const now = await orNull(client.get<Volume>(at, query));
      if (!now || (await isBusy(name))) return null;
      return (await markComplete(client, at, query)) ? name : null;
    },
  };
}

export type AgentVolumes = ReturnType<typeof makeAgentVolumes>;

async function markComplete(
  client: IncusClient,
  at: string,
  query: { project: string; target: string | undefined },
) {
  return client
    .change<Volume & { description: string }>(at, query, ({ config, description }) => ({
      config: { ...config, [keys.complete]: 'true' },
      description,
    }))
    .then(() => true);
}

/** A backup of the volume as Incus writes one, which is the way to create a volume with content in one call. */
async function archiveOf(
  source: AgentSource,
  volume: { name: string; pool: string; config: Record<string, string> },
) {
  const archive = pack();
  const files = await agentFiles(source);
  // JSON is YAML.
  const index = JSON.stringify({
    name: volume.name,
    backend: 'dir',
    pool: volume.pool,
    optimized: false,
    type: 'custom',
    config: {
      volume: {
        name: volume.name,
        type: 'custom',
        content_type: 'filesystem',
        config: volume.config,
      },
    },
  });
  const write = async () => {
    archive.entry({ name: 'backup/index.yaml' }, index);
    archive.entry({ name: 'backup/volume', type: 'directory', mode: 0o755 });
    await packAgentFiles(archive, files, 'backup/volume/');
    archive.finalize();
  };
  write().catch((error) => archive.destroy(error as Error));
  return archive;
}
