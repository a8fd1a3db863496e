import { defineConfig } from 'vitest/config';
import { everySuite } from '../kit/vitest.ts';

/** The API against its own description, by generated requests; `npm run test:api`. */
export default defineConfig({
  test: {
    ...everySuite,
    // Requests are random: what it finds once is a bug, even if the next run does not find it.
    retry: 0,
    include: ['tests/schemathesis/*.test.ts'],
    testTimeout: 600_000,
    hookTimeout: 600_000,
  },
});
