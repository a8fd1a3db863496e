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
    testTimeout: 900_000,
    hookTimeout: 120_000,
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
