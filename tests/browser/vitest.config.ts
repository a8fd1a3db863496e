import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import { inCi } from '../ci-report.ts';

export default defineConfig({
  test: {
    ...inCi,
    root: fileURLToPath(new URL('../..', import.meta.url)),
    include: ['tests/browser/*.test.ts'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // One Chromium and one server at a time: two of each on two cores are slower than one after the other.
    fileParallelism: false,
  },
});
