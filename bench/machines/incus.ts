import { join } from 'node:path';
import { faultySocket } from '../../tests/machines/faulty-socket.ts';
import startIncus, { testIncus } from '../../tests/machines/incus-engine.ts';
import { incusImages } from '../../tests/machines/incus-image.ts';
import { makeScene, makeSpec } from '../../tests/machines/incus-scene.ts';
import type { Entry } from './entry.ts';

export async function incus(): Promise<Entry> {
  const stopEngine = await startIncus();
  const engine = testIncus();
  if (!engine) throw new Error(process.env.CDE_TEST_INCUS_MISSING);
  const scene = await makeScene();
  const command = scene.incus;
  const socket = await faultySocket(join(engine.folder, 'unix.socket'));
  const provider = scene.provider({ address: { url: socket.url } });
  const exec = (instance: string, project = 'default') =>
    command('exec', instance, '--project', project, '--', 'echo', 'ready');
  return {
    provider,
    makeSpec: () => makeSpec(),
    runInside: async ({ workspaceId, template }) =>
      void (await exec(`cde-${workspaceId}`, template.incus!.project)),
    calls: socket.calls,
    byHand: {
      async start(name) {
        await command('storage', 'volume', 'create', 'default', name);
        await command('init', incusImages.debian, name);
        await command(
          ...['config', 'device', 'add', name, 'home', 'disk'],
          ...['pool=default', `source=${name}`, 'path=/home/ada'],
        );
        await command('start', name);
        await exec(name);
      },
      async startAgain(name) {
        await command('start', name);
        await exec(name);
      },
      stop: async (name) => void (await command('stop', name)),
      async remove(name) {
        await command('delete', '--force', name);
        await command('storage', 'volume', 'delete', 'default', name);
      },
    },
    async close() {
      await provider.close();
      await socket.close();
      await scene.close();
      await stopEngine?.();
    },
  };
}
