import { defineConfig } from 'vitest/config';
import { everySuite } from '../kit/vitest.ts';

/** Providers against their real engines; `npm run test:machines`. Needs Linux, root, and Debian's docker.io and incus-base. */
export default defineConfig({
  test: {
    ...everySuite,
    include: ['tests/machines/*.test.ts'],
    globalSetup: ['tests/machines/docker-engine.ts', 'tests/machines/incus-engine.ts'],
    testTimeout: 300_000,
    hookTimeout: 300_000,
  },
});
