import { defineConfig } from 'vitest/config';
import { everySuite } from '../kit/vitest.ts';

/** Providers against their real engines; `npm run test:machines`. Needs Linux, root, and
 * Debian, which has the engines: docker.io, incus-base, qemu-system-x86; and PyPI, for moto. */
export default defineConfig({
  test: {
    ...everySuite,
    include: ['tests/machines/*.test.ts'],
    globalSetup: ['docker-engine.ts', 'incus-engine.ts', 'moto.ts', 'ec2-engine.ts'].map(
      (name) => `tests/machines/${name}`,
    ),
    // Guests without hardware virtualisation take minutes to boot on a machine that does much else.
    env: { CDE_TEST_PATIENCE_MS: '300000' },
    testTimeout: 300_000,
    hookTimeout: 300_000,
  },
});
