import { defineConfig } from 'vitest/config';
import { everySuite } from '../kit/vitest.ts';

/** Adds interfaces and addresses to this machine, which sessions of other files would notice: runs after them. */
const networks = ['tests/faults/network.test.ts'];

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
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
