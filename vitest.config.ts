import { availableParallelism } from 'node:os';
import { configDefaults, defineConfig } from 'vitest/config';
import { everySuite } from './tests/kit/vitest.ts';

export default defineConfig({
  test: {
    ...everySuite,
    globalSetup: ['server/testing-setup.ts'],
    include: [
      '{api,tunnel,filesync,satellite,server,agent,cli,web,noded}/**/*.test.ts',
      '{api,tunnel,satellite,server,agent,cli,web}/**/*.test.tsx',
      'tests/*.test.ts',
    ],
    // These need a cluster: npm run test:kubernetes.
    exclude: [...configDefaults.exclude, '**/*.kube.test.ts'],
    // Half of the time of a file is spent waiting for processes of its own.
    maxWorkers: availableParallelism() + 1,
    // A test that hangs fails; a busy machine does not.
    testTimeout: 120_000,
    hookTimeout: 180_000,
  },
});
