import { defineConfig } from 'vitest/config';
import { everySuite } from '../kit/vitest.ts';

export default defineConfig({
  test: {
    ...everySuite,
    include: ['tests/browser/*.test.ts'],
    testTimeout: 480_000,
    hookTimeout: 240_000,
    // One Chromium and one server at a time: two of each on two cores are slower than one after the other.
    fileParallelism: false,
  },
});
