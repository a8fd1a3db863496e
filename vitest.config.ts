import { availableParallelism } from 'node:os';
import { configDefaults, defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';
import { everySuite } from './tests/kit/vitest.ts';

/** The files that start servers and agents take longest, so that none of them should be the last to begin. */
class ProcessesFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const startsProcesses = ({ moduleId }: TestSpecification) => /\/(tests|cli|local)\/[^/]+$/.test(moduleId);
    const sorted = await super.sort(files);
    return [...sorted.filter(startsProcesses), ...sorted.filter((file) => !startsProcesses(file))];
  }
}

export default defineConfig({
  test: {
    ...everySuite,
    globalSetup: ['server/testing-setup.ts'],
    include: [
      '{api,diagnosis,tunnel,filesync,satellite,server,agent,cli,web,noded}/**/*.test.ts',
      '{api,tunnel,satellite,server,agent,cli,web}/**/*.test.tsx',
      'tests/*.test.ts',
    ],
    // These need a cluster: npm run test:kubernetes.
    exclude: [...configDefaults.exclude, '**/*.kube.test.ts'],
    // A file spends more than half of its time waiting for processes of its own.
    maxWorkers: Math.max(4, availableParallelism() - 1),
    sequence: { sequencer: ProcessesFirst },
    // A test that hangs fails; a busy machine does not.
    testTimeout: 120_000,
    hookTimeout: 180_000,
  },
});
