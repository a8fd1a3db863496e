import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import { installTimeoutMs } from './installs.ts';

export default defineConfig({
  test: {
    root: fileURLToPath(new URL('../..', import.meta.url)),
    include: ['tests/frameworks/*.test.ts'],
    testTimeout: 120_000,
    hookTimeout: installTimeoutMs,
    fileParallelism: false,
  },
});
