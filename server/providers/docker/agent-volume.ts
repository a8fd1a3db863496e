import { createHash } from 'node:crypto';
import type Dockerode from 'dockerode';
import { pack } from 'tar-stream';
import {
  type AgentSource as AgentFilesSource,
  agentFiles,
  agentFolder,
  hashAgentFiles,
  packAgentFiles,
} from '../agent-files.ts';
import { ProviderFailure } from '../failure.ts';
import { accept, orNull, statusOf } from './engine.ts';
import { agentVolume, labels } from './names.ts';

/** Where the agent comes from. */
export type AgentSource =
  /** An image built by docker/Dockerfile, which has the C library that Node needs: for images with any or none. */
  | { image: string }
  /** This server's own bundle and Node: for images with glibc, of this server's platform. */
  | AgentFilesSource;

/** Filling takes seconds. An attempt this old was given up, by a server that was killed. */
const staleAfterMs = 120_000;

/**
 * Puts the agent on the engine: a volume that all its workspaces mount read-only, so that a start copies nothing. Its name
 * has a hash of the content; a new version of the server fills a new one.
 */
export function makeAgentVolumes(source: AgentSource, installation: string) {
  let hashing: Promise<string> | undefined;

  const versionOf = () => {
    hashing ??= hashOf(source).catch((error) => {
      hashing = undefined;
      throw error;
    });
    return hashing;
  };

  return {
    /** The image that has to be on the engine to fill a volume; null: any is as good. */
    image: 'image' in source ? source.image : null,
    /** The name of the volume that this server uses. */
    name: async () => agentVolume(await versionOf()),
    /**
     * The name of the filled volume; null while another server fills it. Takes seconds when it has to fill one. `image`: any
     * that is on the engine.
     */
    async ensure(engine: Dockerode, image: string, now: Date): Promise<string | null> {
      const volume = agentVolume(await versionOf());
      // Created when the volume is complete: volumes cannot be labelled later.
      const complete = `${volume}-complete`;
      if (await orNull(engine.getVolume(complete).inspect())) return volume;
      const own = { [labels.installation]: installation, [labels.role]: 'agent' };
      let filler: Dockerode.Container;
      try {
        // Its name keeps other servers from filling the volume at the same time.
        filler = await engine.createContainer({
          name: `${volume}-filler`,
          Image: 'image' in source ? source.image : image,
          Entrypoint: [`${agentFolder}/node`, `${agentFolder}/install.mjs`],
          Cmd: ['/target'],
          User: '0:0',
          Labels: own,
          HostConfig: {
            NetworkMode: 'none',
            Mounts: [
              {
                Type: 'volume',
                Source: volume,
                Target: 'image' in source ? '/target' : agentFolder,
                VolumeOptions: { NoCopy: false, Labels: own, DriverConfig: { Name: 'local', Options: {} } },
              },
            ],
          },
        });
      } catch (error) {
        if (statusOf(error) !== 409) throw error;
        const other = engine.getContainer(`${volume}-filler`);
        const found = await orNull(other.inspect());
        if (found && now.getTime() - Date.parse(found.Created) > staleAfterMs)
          await accept(other.remove({ force: true }), 404);
        return null;
      }
      try {
        if ('image' in source) await runFiller(filler);
        else await upload(filler, source);
        await engine.createVolume({ Name: complete, Labels: own });
      } finally {
        await accept(filler.remove({ force: true }), 404);
      }
      return volume;
    },
  };
}

export type AgentVolumes = ReturnType<typeof makeAgentVolumes>;

async function runFiller(filler: Dockerode.Container): Promise<void> {
  await filler.start();
  const { StatusCode } = (await filler.wait()) as { StatusCode: number };
  if (StatusCode === 0) return;
  throw new ProviderFailure({
    code: 'agent-not-installed',
    message: `The agent's image ended with code ${StatusCode} instead of installing the agent.`,
    hint: 'CDE_DOCKER_AGENT_IMAGE has to be an image built by docker/Dockerfile (target agent).',
    fault: 'system',
  });
}

const filesOf = (source: AgentFilesSource) => agentFiles(source, ', or set CDE_DOCKER_AGENT_IMAGE');

async function hashOf(source: AgentSource): Promise<string> {
  if ('image' in source) return createHash('sha256').update(source.image).digest('hex').slice(0, 16);
  return hashAgentFiles(await filesOf(source));
}

async function upload(filler: Dockerode.Container, source: { folder: string; node: string }): Promise<void> {
  const archive = pack();
  const sent = filler.putArchive(archive as unknown as NodeJS.ReadableStream, { path: agentFolder });
  // Reported by `sent` unless reading fails first.
  sent.catch(() => {});
  try {
    await packAgentFiles(archive, await filesOf(source));
    archive.finalize();
  } catch (error) {
    archive.destroy(error as Error);
    throw error;
  }
  await sent;
}
