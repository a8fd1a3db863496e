import { defineConfig } from 'vitest/config';
import { everySuite } from '../kit/vitest.ts';

/**
 * One at a time, after the others: network.test.ts adds interfaces and addresses that other sessions would notice, and
 * what nat.test.ts measures of UDP depends on the load.
 */
const networks = ['tests/faults/nat.test.ts', 'tests/faults/network.test.ts'];

/** Slow tests with real processes that are killed; `npm run test:faults`. */
export default defineConfig({
  test: {
    ...everySuite,
    // Beside this suite, images are built and clusters started: then the disk, and so the database, is slow for minutes.
    env: { CDE_TEST_PATIENCE_MS: '300000' },
    testTimeout: 1_800_000,
    hookTimeout: 300_000,
    maxConcurrency: 4,
    // They spend most of their time waiting.
    maxWorkers: 3,
    projects: [
      {
        extends: true,
        test: {
          name: 'processes',
          include: ['tests/faults/*.test.ts'],
          exclude: networks,
        },
      },
      {
        extends: true,
        test: {
          name: 'networks',
          include: networks,
          fileParallelism: false,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
