import { defineConfig } from 'vitest/config';
import { everySuite } from '../kit/vitest.ts';

/** Tests of ten minutes of silence and of idle periods, which spend their time waiting; `npm run test:long`. */
export default defineConfig({
  test: {
    ...everySuite,
    include: ['tests/long/*.test.ts'],
    // An idle stop follows the minute over which the CPU is averaged, the idle period, and a sweep.
    env: { CDE_TEST_PATIENCE_MS: '300000' },
    testTimeout: 1_800_000,
    // Both files at once: they wait.
    maxWorkers: 2,
    hookTimeout: 120_000,
  },
});
