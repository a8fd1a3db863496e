import { defineConfig } from 'vitest/config';
import { everySuite } from '../kit/vitest.ts';

/** Tests that need ten minutes of silence; `npm run test:long`. */
export default defineConfig({
  test: {
    ...everySuite,
    include: ['tests/long/*.test.ts'],
    testTimeout: 900_000,
    hookTimeout: 120_000,
  },
});
