import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { testProviderContract } from '../conformance/conformance.ts';
import { launchOf, levelsHere, makeScene, makeSpec } from './testing.ts';

for (const isolation of await levelsHere())
  testProviderContract(`local, ${isolation}`, async () => {
    const scene = makeScene();
    return {
      makeProvider: () => scene.provider('polite', { isolation }),
      makeSpec: () => makeSpec(`w-${randomUUID()}`),
      makeLaunch: launchOf,
      async writeHome({ workspaceId }, name, text) {
        writeFileSync(join(scene.home(workspaceId), name), text);
      },
      async readHome({ workspaceId }, name) {
        const file = join(scene.home(workspaceId), name);
        return existsSync(file) ? readFileSync(file, 'utf8') : null;
      },
      async killAgent() {
        for (const pid of scene.agents()) process.kill(pid, 'SIGKILL');
      },
      countAgents: async () => scene.agents().length,
      close: () => scene.close(),
    };
  });
