import { defineConfig } from 'vitest/config';
import { everySuite } from '../kit/vitest.ts';

/** Providers against their real engines; `npm run test:machines`. Needs Linux, root, Debian's docker.io and incus-base, and PyPI for moto. */
export default defineConfig({
  test: {
    ...everySuite,
    include: ['tests/machines/*.test.ts'],
    globalSetup: ['docker-engine.ts', 'incus-engine.ts', 'moto.ts'].map((name) => `tests/machines/${name}`),
    testTimeout: 300_000,
    hookTimeout: 300_000,
  },
});
