import { defineConfig } from 'vitest/config';

/** Slow tests with real processes that are killed; `npm run test:faults`. */
export default defineConfig({
  test: {
    include: ['tests/faults/*.test.ts'],
    testTimeout: 240_000,
    maxConcurrency: 4,
    hookTimeout: 120_000,
    fileParallelism: false,
  },
});
