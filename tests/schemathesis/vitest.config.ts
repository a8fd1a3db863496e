import { defineConfig } from 'vitest/config';
import { everySuite } from '../kit/vitest.ts';

/** The API against its own description, by generated requests; `npm run test:api`. */
export default defineConfig({
  test: {
    ...everySuite,
    // What it finds once is a fault, whether or not the next run's requests find it again.
    retry: 0,
    include: ['tests/schemathesis/*.test.ts'],
    testTimeout: 240_000,
    hookTimeout: 240_000,
  },
});
