import { defineConfig } from 'vitest/config';

/** What takes ten minutes by its nature; `npm run test:long`. */
export default defineConfig({
  test: {
    include: ['tests/long/*.test.ts'],
    testTimeout: 900_000,
    hookTimeout: 120_000,
  },
});
