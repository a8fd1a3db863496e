import { defineConfig } from 'vitest/config';
import { everySuite } from '../kit/vitest.ts';
import { installTimeoutMs } from './installs.ts';

export default defineConfig({
  test: {
    ...everySuite,
    include: ['tests/frameworks/*.test.ts'],
    testTimeout: 120_000,
    hookTimeout: installTimeoutMs,
    fileParallelism: false,
  },
});
