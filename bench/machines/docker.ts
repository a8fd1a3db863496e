import { images } from '../../tests/cluster/images.ts';
import startEngine, { type TestEngine, testEngine } from '../../tests/machines/docker-engine.ts';
import { makeScene, makeSpec } from '../../tests/machines/docker-scene.ts';
import { faultySocket } from '../../tests/machines/faulty-socket.ts';
import { startPodman } from '../../tests/machines/podman-engine.ts';
import type { Entry } from './entry.ts';

export async function docker(): Promise<Entry> {
  const stop = await startEngine();
  return containers(testEngine(), async () => stop?.());
}

/** By hand with `docker`, too: Podman has the same service for both. */
export async function podman(): Promise<Entry> {
  const engine = await startPodman();
  return containers(engine, engine.close);
}

async function containers(
  engine: Pick<TestEngine, 'url' | 'docker'>,
  stopEngine: () => Promise<void>,
): Promise<Entry> {
  const scene = await makeScene(engine);
  const command = scene.docker;
  const socket = await faultySocket(new URL(engine.url).pathname);
  const provider = scene.provider({ address: { url: socket.url } });
  const exec = (container: string) => command('exec', container, 'echo', 'ready');
  return {
    provider,
    makeSpec: () => makeSpec(),
    runInside: async ({ workspaceId }) => void (await exec(`cde-${workspaceId}`)),
    calls: socket.calls,
    byHand: {
      async start(name) {
        await command('network', 'create', name);
        await command(
          ...['run', '--detach', '--name', name, '--init', '--network', name],
          ...['--volume', `${name}:/home/ada`, images.debian, 'sleep', 'infinity'],
        );
        await exec(name);
      },
      async startAgain(name) {
        await command('start', name);
        await exec(name);
      },
      stop: async (name) => void (await command('stop', '--time', '3', name)),
      async remove(name) {
        await command('rm', '--force', '--volumes', name);
        await command('network', 'rm', name);
        await command('volume', 'rm', name);
      },
    },
    async close() {
      await provider.close();
      await socket.close();
      await scene.close();
      await stopEngine();
    },
  };
}
