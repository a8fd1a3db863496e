import { defineConfig } from 'vitest/config';
import { inCi } from '../ci-report.ts';

/** What takes ten minutes by its nature; `npm run test:long`. */
export default defineConfig({
  test: {
    ...inCi,
    include: ['tests/long/*.test.ts'],
    testTimeout: 900_000,
    hookTimeout: 120_000,
  },
});
