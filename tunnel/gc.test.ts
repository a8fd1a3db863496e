import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

/** How many major collections run while 1.6 GB of Buffers are allocated, a few MB of them live at any time. */
function countMajorCollections(setUp: string): number {
  const script = `
    import { PerformanceObserver, constants } from 'node:perf_hooks';
    import { collectBuffersEarly } from ${JSON.stringify(fileURLToPath(new URL('gc.ts', import.meta.url)))};
    ${setUp}
    let majors = 0;
    const count = (entries) => {
      for (const { detail } of entries) if (detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR) majors++;
    };
    const observer = new PerformanceObserver((list) => count(list.getEntries()));
    observer.observe({ entryTypes: ['gc'] });
    const held = [];
    for (let i = 0; i < 25600; i++) {
      held[i % 64] = Buffer.alloc(65536, i);
      if (i % 16 === 0) await new Promise(setImmediate);
    }
    count(observer.takeRecords());
    console.log(majors);`;
  return Number(execFileSync(process.execPath, ['--input-type=module', '-e', script]));
}

test('short-lived Buffers are freed without major collections', () => {
  const byDefault = countMajorCollections('');
  const tuned = countMajorCollections('collectBuffersEarly({ smallNewSpace: true });');
  expect(tuned).toBeLessThan(byDefault / 2);
});
