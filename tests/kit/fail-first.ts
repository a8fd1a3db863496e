import { afterEach } from 'vitest';

/** Fails the first attempt at each test after its last line, so that the second one runs on what the first has left. */
afterEach(({ task }) => {
  if (task.result?.state === 'pass' && task.result.retryCount === 0)
    throw new Error('failed on purpose, because CDE_TEST_FAIL_FIRST is set');
});
