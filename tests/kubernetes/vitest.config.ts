import { basename } from 'node:path';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';
import { buildTimeout } from '../cluster/tool.ts';
import { everySuite } from '../kit/vitest.ts';

/**
 * Files that run after all others: noded removes kernel profile labels that it does not know from the real node, and
 * the VolumeSnapshot definitions change how every provider on the cluster deletes a home.
 */
const clusterWide = ['tests/kubernetes/noded.test.ts', 'tests/kubernetes/snapshots.test.ts'];

/** The slowest files, so that none of them starts when the others are done. */
const slowestFirst = [
  'conformance.test.ts',
  'provider.test.ts',
  'faults-nodes.test.ts',
  'kill-update.test.ts',
  'day.test.ts',
  'kill-start.test.ts',
  'kill-delete.test.ts',
  'faults-api-server.test.ts',
  'build.test.ts',
  'kill-stop.test.ts',
  'faults-namespaces.test.ts',
  'reasons.kube.test.ts',
  'installation.test.ts',
];

class SlowestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = (file: TestSpecification) => {
      const index = slowestFirst.indexOf(basename(file.moduleId));
      return index < 0 ? slowestFirst.length : index;
    };
    return [...files].sort((a, b) => rank(a) - rank(b));
  }
}

/** Tests on a real cluster; `npm run test:kubernetes`. */
export default defineConfig({
  test: {
    ...everySuite,
    globalSetup: ['tests/kubernetes/setup.ts'],
    // Pods of four files start on the same processors.
    env: { CDE_TEST_PATIENCE_MS: '300000' },
    // A test that hangs fails; a busy machine does not. Hooks may build images and tools.
    testTimeout: 900_000,
    hookTimeout: buildTimeout,
    // Most tests wait for the cluster; more files at once than this and they wait for the processor.
    maxWorkers: 4,
    sequence: { sequencer: SlowestFirst },
    projects: [
      {
        extends: true,
        test: {
          name: 'parallel',
          include: ['**/*.kube.test.ts', 'tests/kubernetes/**/*.test.ts'],
          exclude: ['**/node_modules/**', ...clusterWide],
        },
      },
      {
        extends: true,
        test: { name: 'cluster-wide', include: clusterWide, sequence: { groupOrder: 1 } },
      },
    ],
  },
});
