import { describe, expect, test } from 'vitest';
import type { ProviderState } from '../../provider.ts';
import { readState, type State, writeRemovedState, writeState } from './state.ts';

const running: State = {
  cluster: 'one',
  namespace: 'cde-ada-web',
  appliedBuild: 'b1',
  quotaHash: 'h1',
  lastReason: 'The image is pulled.',
  unreachableSince: '2026-03-01T10:00:00.000Z',
  quotaClosed: true,
};

/** PostgreSQL keeps states as JSON. */
const stored = (state: ProviderState): ProviderState => JSON.parse(JSON.stringify(state));

test('a state is read as it was written', () => {
  expect(readState(stored(writeState(running)))).toEqual(running);
  expect(readState({})).toEqual({});
});

describe('during a rolling upgrade', () => {
  /** The fields that the previous release knows by other names. */
  interface Former {
    applied?: string;
    quota?: string;
    said?: string;
    awaySince?: string;
    closed?: boolean;
    fate?: 'keep' | 'discard';
    kept?: boolean;
  }
  const asRead = (state: ProviderState): ProviderState & Former => stored(state);

  test('a replica of the previous release finds every renamed field', () => {
    expect(asRead(writeState(running))).toMatchObject({
      applied: 'b1',
      quota: 'h1',
      said: 'The image is pulled.',
      awaySince: '2026-03-01T10:00:00.000Z',
      closed: true,
    });
    const removed = writeRemovedState({ ...running, homeDisposition: 'keep', homeRetained: true });
    expect(asRead(removed)).toMatchObject({ fate: 'keep', kept: true });
  });

  test('what it changes and deletes is what this release reads, and the rest stays', () => {
    const { closed: _, awaySince: _away, ...rest } = asRead(writeState(running));
    const { quotaClosed: _closed, unreachableSince: _since, ...kept } = running;
    expect(readState({ ...rest, applied: 'b2', said: 'The pod runs.' })).toEqual({
      ...kept,
      appliedBuild: 'b2',
      lastReason: 'The pod runs.',
    });
  });

  test('a state that only the previous release has written is read', () => {
    expect(readState({ cluster: 'one', fate: 'keep', kept: true, said: 'x' })).toEqual({
      cluster: 'one',
      homeDisposition: 'keep',
      homeRetained: true,
      lastReason: 'x',
    });
  });
});

test('a state with only the current names is read', () => {
  expect(readState({ ...running })).toEqual(running);
});
