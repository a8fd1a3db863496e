import { defineConfig } from 'vitest/config';
import { everySuite } from '../kit/vitest.ts';

/** Slow tests with real processes that are killed; `npm run test:faults`. */
export default defineConfig({
  test: {
    ...everySuite,
    include: ['tests/faults/*.test.ts'],
    testTimeout: 240_000,
    maxConcurrency: 4,
    hookTimeout: 120_000,
    fileParallelism: false,
  },
});
