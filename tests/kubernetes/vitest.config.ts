import { basename } from 'node:path';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';
import { everySuite } from '../kit/vitest.ts';

/**
 * Files that run after all others: noded removes kernel profile labels that it does not know from the real node, and
 * the VolumeSnapshot definitions change how every provider on the cluster deletes a home.
 */
const clusterWide = ['tests/kubernetes/noded.test.ts', 'tests/kubernetes/snapshots.test.ts'];

/** The slowest files, so that none of them starts when the others are done. */
const slowestFirst = [
  'provider.test.ts',
  'faults.test.ts',
  'kill.test.ts',
  'day.test.ts',
  'build.test.ts',
  'reasons.kube.test.ts',
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
    testTimeout: 120_000,
    hookTimeout: 120_000,
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
