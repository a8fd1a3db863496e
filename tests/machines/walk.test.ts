import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { testRandomWalk } from '@cde/server/providers/conformance/walk.ts';
import { argvOf, treeOf } from '@cde/server/providers/local/processes.ts';
import {
  launchOf,
  makeScene as makeLocalScene,
  makeSpec as makeLocalSpec,
} from '@cde/server/providers/local/testing.ts';
import type { WorkspaceSpec } from '@cde/server/providers/provider.ts';
import { images } from '../cluster/images.ts';
import { testEngine } from './docker-engine.ts';
import { conformanceSubject, makeScene, makeSpec } from './docker-scene.ts';
import { faultySocket } from './faulty-socket.ts';

testRandomWalk(
  'local',
  async () => {
    const scene = makeLocalScene();
    const supervisorsOf = ({ workspaceId }: WorkspaceSpec) =>
      scene.supervisors().filter((pid) => argvOf(pid)?.some((word) => word.endsWith(`/${workspaceId}`)));
    async function agentsOf(spec: WorkspaceSpec) {
      const trees = await Promise.all(supervisorsOf(spec).map(treeOf));
      const its = new Set(trees.flat());
      return scene.agents().filter((pid) => its.has(pid));
    }
    const kill = (pids: number[]) => {
      for (const pid of pids) {
        try {
          process.kill(pid, 'SIGKILL');
        } catch {
          // It has exited meanwhile.
        }
      }
    };
    return {
      makeReplica: async () => ({ provider: scene.provider('polite') }),
      makeSpec: () => makeLocalSpec(`w-${randomUUID()}`),
      makeLaunch: launchOf,
      updateOf: (spec) => ({
        ...spec,
        template: { ...spec.template, env: { RELEASE: randomUUID() } },
      }),
      async writeHome({ workspaceId }, name, text) {
        writeFileSync(join(scene.home(workspaceId), name), text);
      },
      async readHome({ workspaceId }, name) {
        const file = join(scene.home(workspaceId), name);
        return existsSync(file) ? readFileSync(file, 'utf8') : null;
      },
      async killAgent(spec) {
        kill(await agentsOf(spec));
      },
      countAgents: async (spec) => (await agentsOf(spec)).length,
      // As a restart of the machine does, with a run directory on a file system that does not survive it.
      async removeCompute(spec) {
        const agents = await agentsOf(spec);
        kill([...supervisorsOf(spec), ...agents]);
        await rm(join(scene.dataDir, 'run', spec.workspaceId), { recursive: true, force: true });
      },
      close: () => scene.close(),
    };
  },
  80,
);

testRandomWalk(
  'docker',
  async () => {
    const scene = await makeScene();
    const { pathname } = new URL(testEngine().url);
    return {
      ...conformanceSubject(scene),
      async makeReplica() {
        const connection = await faultySocket(pathname);
        return { provider: scene.provider({ address: { url: connection.url } }), connection };
      },
      updateOf: (spec) => ({
        ...makeSpec(spec.template.docker!.image === images.debian ? images.debianNewer : images.debian),
        workspaceId: spec.workspaceId,
      }),
      async removeCompute({ workspaceId }) {
        await scene.docker('rm', '--force', `cde-${workspaceId}`).catch(() => {});
      },
    };
  },
  16,
);
