import { defineConfig } from 'vitest/config';
import { everySuite } from '../kit/vitest.ts';

/** Tests that mostly wait: ten minutes of silence, idle periods; `npm run test:long`. */
export default defineConfig({
  test: {
    ...everySuite,
    include: ['tests/long/*.test.ts'],
    testTimeout: 900_000,
    hookTimeout: 120_000,
  },
});
