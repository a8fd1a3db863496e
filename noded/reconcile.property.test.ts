// For any sequence of profiles, and wherever noded is killed, everything is restored in the end.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Original, Originals } from './originals.ts';
import type { Profile, SysctlTarget } from './profiles.ts';
import { makeReconciler } from './reconcile.ts';
import type { Sysctls } from './sysctls.ts';

const killed = new Error('killed');
const names = ['plain', 'rounds', 'refuses', 'clips'] as const;
const before = { plain: '50', rounds: '64', refuses: '50', clips: '50' };
/** What kernels do with values: pipe-max-size rounds up, others have a maximum or reject. */
function take(name: string, value: string): string {
  const number = Number(value);
  if (name === 'rounds') return String(Math.ceil(number / 16) * 16);
  if (name === 'clips') return String(Math.min(number, 90));
  if (name === 'refuses' && number > 90) throw Object.assign(new Error('EINVAL'), { code: 'EINVAL' });
  return value;
}

const wanted = fc
  .integer({ min: 1, max: 120 })
  .chain((value) => fc.constantFrom<SysctlTarget>({ exact: String(value) }, { atLeast: BigInt(value) }));
const profiles = fc.array(
  fc.dictionary(fc.constantFrom(...names), wanted, { minKeys: 1, noNullPrototype: true }),
  {
    maxLength: 3,
  },
);
const steps = fc.array(
  fc.record({
    profiles,
    passes: fc.integer({ min: 1, max: 3 }),
    killedAt: fc.option(fc.integer({ min: 1, max: 12 })),
  }),
  { minLength: 1, maxLength: 6 },
);

/** What the kernel rounds up is good enough for one wish, and then not for the same number as an exact value. */
const roundedThenExact = [{ atLeast: 70n }, { exact: '70' }].map((target: SysctlTarget) => ({
  profiles: [{ rounds: target }],
  passes: 1,
  killedAt: null,
}));

test('the kernel is restored, and what is reported as ready is true', async () => {
  await fc.assert(
    fc.asyncProperty(steps, async (given) => {
      const kernel: Record<string, string> = { ...before };
      let record: Record<string, Original> = {};
      let left = Number.POSITIVE_INFINITY;
      let writes = 0;
      /** Dies before or after its effect. */
      const touch = (act: () => void) => {
        if (--left <= 0) throw killed;
        act();
        if (--left <= 0) throw killed;
      };
      const start = () => {
        const sysctls: Sysctls = {
          read: (name) => kernel[name] ?? null,
          write: (name, value) => {
            writes++;
            const made = take(name, value);
            touch(() => {
              kernel[name] = made;
            });
          },
          namespaceOf: () => null,
          bootId: () => 'boot',
        };
        const originals: Originals = {
          get: (name) => record[name],
          names: () => Object.keys(record),
          put: (name, entry) =>
            touch(() => {
              const { [name]: _, ...others } = record;
              record = entry ? { ...others, [name]: entry } : others;
            }),
        };
        return makeReconciler({ sysctls, originals, modules: { ensure: async () => null } });
      };
      let keeper = start();
      for (const step of given) {
        left = step.killedAt ?? Number.POSITIVE_INFINITY;
        const wish = step.profiles.map(
          (sysctls, index): Profile => ({
            name: `p${index}`,
            sysctls: new Map(Object.entries(sysctls)),
            modules: [],
            nodeSelector: {},
          }),
        );
        try {
          for (let pass = 0; pass < step.passes; pass++) {
            writes = 0;
            const { states } = await keeper.pass(wish);
            // It mistook the kill for a rejection by the kernel.
            if (left <= 0) throw killed;
            // Nothing else changes values here, so no write is repeated.
            if (pass > 0) expect(writes).toBe(0);
            for (const { name, sysctls } of wish)
              if (states.get(name)!.state === 'ready')
                for (const [sysctl, value] of sysctls)
                  expect(
                    'exact' in value
                      ? kernel[sysctl] === value.exact
                      : BigInt(kernel[sysctl]!) >= value.atLeast,
                  ).toBe(true);
          }
        } catch (error) {
          if (error !== killed) throw error;
          keeper = start();
        }
      }
      left = Number.POSITIVE_INFINITY;
      expect((await start().pass([])).left.size).toBe(0);
      expect(kernel).toEqual(before);
      expect(record).toEqual({});
    }),
    { numRuns: 300, examples: [[roundedThenExact]] },
  );
});
