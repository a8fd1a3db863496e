import { defineConfig } from 'vitest/config';
import { everySuite } from '../kit/vitest.ts';

/** What takes ten minutes by its nature; `npm run test:long`. */
export default defineConfig({
  test: {
    ...everySuite,
    include: ['tests/long/*.test.ts'],
    testTimeout: 900_000,
    hookTimeout: 120_000,
  },
});
