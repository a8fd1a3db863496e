import { defineConfig } from 'vitest/config';
import { everySuite } from '../kit/vitest.ts';

/** Tests of ten minutes of silence and of idle periods, which spend their time waiting; `npm run test:long`. */
export default defineConfig({
  test: {
    ...everySuite,
    include: ['tests/long/*.test.ts'],
    testTimeout: 900_000,
    hookTimeout: 120_000,
  },
});
