import { fileURLToPath } from 'node:url';
import type { Reporter, TestCase, TestModule } from 'vitest/node';
import { patienceMs } from './until.ts';

const maxErrorLength = 400;
const slowestShown = 20;

/** Set to check that each test can be retried (tests/kit/fail-first.ts). */
const failsFirst = Boolean(process.env.CDE_TEST_FAIL_FIRST);

/**
 * What every suite has in common. In CI a failed test runs once more, and a test that passes then is
 * listed as `flaky:` with its first error, so that one unlucky test does not cost a run and is not forgotten.
 */
export const everySuite = {
  root: fileURLToPath(new URL('../..', import.meta.url)),
  setupFiles: [
    'server/database/drizzle-imports.ts',
    'tests/kit/patience.ts',
    ...(failsFirst ? ['tests/kit/fail-first.ts'] : []),
  ],
  expect: { poll: { timeout: patienceMs } },
  retry: process.env.CI || failsFirst ? 1 : 0,
  ...(process.env.CI && !failsFirst && { reporters: ['default' as const, makeCiReporter()] }),
};

/** Prints a line for each flaky test, and the slowest tests of the suite. */
function makeCiReporter(): Reporter {
  return {
    onTestRunEnd(modules) {
      const tests = modules.flatMap((module) => [...module.children.allTests()]);
      const lines = [...flakyLines(tests), ...slowestLines(tests, modules)];
      if (lines.length > 0) process.stdout.write(`\n${lines.join('\n')}\n`);
    },
  };
}

function flakyLines(tests: readonly TestCase[]): string[] {
  return tests
    .filter((test) => test.diagnostic()?.flaky)
    .map((test) => {
      const error = test.result().errors?.[0]?.message ?? 'no error was recorded';
      return `flaky: ${nameOf(test)}: ${oneLine(error)}`;
    });
}

function slowestLines(tests: readonly TestCase[], modules: readonly TestModule[]): string[] {
  const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;
  const slowest = tests
    .map((test) => ({ name: nameOf(test), ms: test.diagnostic()?.duration ?? 0 }))
    .sort((a, b) => b.ms - a.ms)
    .slice(0, slowestShown);
  const total = modules.reduce((sum, module) => sum + module.diagnostic().duration, 0);
  return [
    `slowest of ${tests.length} tests (${seconds(total)} in all files):`,
    ...slowest.map(({ name, ms }) => `  ${seconds(ms).padStart(8)}  ${name}`),
  ];
}

function nameOf(test: TestCase): string {
  return `${test.module.relativeModuleId} > ${test.fullName}`;
}

function oneLine(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: an error's text may carry colours
  const plain = text.replace(/\u001b\[[0-9;]*m/g, '').replace(/\s+/g, ' ');
  return plain.length > maxErrorLength ? `${plain.slice(0, maxErrorLength)}…` : plain;
}
