import { defineConfig } from 'vitest/config';
import { everySuite } from '../kit/vitest.ts';

/** Tests on a real cluster; `npm run test:kubernetes`. */
export default defineConfig({
  test: {
    ...everySuite,
    globalSetup: ['tests/kubernetes/setup.ts'],
    include: ['**/*.kube.test.ts', 'tests/kubernetes/*.test.ts'],
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // The pods of two files would share two cores, and the figures of both would say nothing.
    fileParallelism: false,
  },
});
