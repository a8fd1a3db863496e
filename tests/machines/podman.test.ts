import { testProviderContract } from '@cde/server/providers/conformance/conformance.ts';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { conformanceSubject, makeScene } from './docker-scene.ts';
import { startPodman } from './podman-engine.ts';

let engine: Awaited<ReturnType<typeof startPodman>>;
beforeAll(async () => {
  engine = await startPodman();
});
afterAll(() => engine?.close());

// Those that differ on Podman: its filters, events, networks and errors. All of them pass.
testProviderContract(
  'docker on Podman',
  async () => {
    const scene = await makeScene(engine);
    return { ...conformanceSubject(scene), makeProvider: () => scene.provider() };
  },
  {
    only: [
      'starts, stops, and starts again on the same home',
      'an agent that ends by itself is reported with a cause of the workload',
      'a retained home survives until it is purged, and is restored into another workspace',
      'what belongs to no workspace is found and removed, and its home can be adopted',
    ],
  },
);

test('the node of Podman says what it is', async () => {
  const scene = await makeScene(engine);
  const provider = scene.provider();
  const { nodes } = await provider.nodes!();
  expect(nodes).toMatchObject([{ runtime: expect.stringMatching(/^Podman \d/) }]);
  await provider.close();
});
