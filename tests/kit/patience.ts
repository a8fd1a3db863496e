import { vi } from 'vitest';
import { patienceMs } from './until.ts';

/**
 * Gives `vi.waitFor` and `vi.waitUntil` the patience of `until`. Their default of one second fails on a busy machine, and
 * vitest has a setting only for `expect.poll`. A vitest setup file.
 */
const { waitFor, waitUntil } = vi;
type Options = number | { timeout?: number; interval?: number };
const patient = (options: Options = {}) => {
  const { timeout = 0, interval = 20 } = typeof options === 'number' ? { timeout: options } : options;
  return { interval, timeout: Math.max(timeout, patienceMs) };
};
vi.waitFor = (callback, options) => waitFor(callback, patient(options));
vi.waitUntil = (callback, options) => waitUntil(callback, patient(options));
