import type { LegSample } from '@cde/api/diagnosis.ts';
import { type Evidence, type SessionWindow, windowsIn } from './evidence.ts';
import { minUsualCount, type Spell, spanOfSpell, usual } from './spells.ts';

/** How much longer round trips were than usual during a spell, in milliseconds; null where nothing was measured. */
export interface Excess {
  /** Between client and agent. */
  whole: number;
  /** Between client and satellite. */
  near: number | null;
  /** Between satellite and agent, measured by the agent. */
  far: number | null;
  /** Beyond the satellite: what is left of the whole without the near leg. Null if that was not measured. */
  beyond: number | null;
  /** Whether it is known what is usual on this path. */
  isComparable: boolean;
}

/** A leg explains a spell if at least this part of the excess arose there. */
const minShare = 0.5;

const worst = (samples: readonly LegSample[]) =>
  Math.max(0, ...samples.map(({ p50, p95 }) => (p50 + p95) / 2));

/** Compares the legs during a spell with their usual round trips. */
export function excessOf(spell: Spell, evidence: Evidence): Excess {
  const { windows } = evidence.session;
  const during = windowsIn(windows, spanOfSpell(spell, evidence.session)).filter(
    ({ path }) => path?.via === spell.path?.via,
  );
  const over = (leg: (window: SessionWindow) => LegSample | null) => {
    const samples = during.flatMap((window) => leg(window) ?? []);
    const first = during[0];
    if (samples.length === 0 || !first) return null;
    return Math.max(0, worst(samples) - usual(first, windows, leg));
  };
  const whole = over(({ toAgent }) => toAgent) ?? 0;
  const near = over(({ toSatellite }) => toSatellite);
  const isSame = ({ path }: SessionWindow) =>
    path?.kind === spell.path?.kind && path?.via === spell.path?.via;
  return {
    ...{ whole, near },
    isComparable: windows.filter(isSame).length > minUsualCount,
    beyond: near === null ? null : Math.max(0, whole - near),
    far: over(({ satelliteToAgent }) => satelliteToAgent),
  };
}

/** Less is what round trips differ by anyway. */
const minExcessMs = 30;
/** Two legs are late alike if the smaller excess is at least this part of the other. */
const alikeShare = 0.25;

/** A leg has nothing to do with a spell if its excess is at most this part of the whole. */
const asUsualShare = 0.2;
/** So late an answer that the agent's own measurement was lost with it. */
const missingMs = 1_000;

/** True if a leg was measured and not late. */
export const isAsUsual = (excessMs: number | null): boolean => excessMs !== null && excessMs < minExcessMs;

/** True if both legs were late: what they have in common is the satellite. */
export const isBoth = ({ near, far }: Excess): boolean =>
  near !== null &&
  far !== null &&
  Math.min(near, far) >= minExcessMs &&
  Math.min(near, far) >= Math.max(near, far) * alikeShare;

/** True if round trips between client and satellite were late. */
export const isNear = ({ whole, near, far }: Excess): boolean =>
  near !== null &&
  near >= minExcessMs &&
  // The round trips of a leg and of the whole are measured at different moments, of which each loses packets of its own.
  (near >= whole * minShare || (isAsUsual(far) && near > whole * asUsualShare));

/** True if round trips between satellite and agent were late, or had no answer while those to the satellite were as usual. */
export const isFar = ({ whole, far, near, beyond }: Excess): boolean =>
  far === null
    ? beyond !== null && near! < minExcessMs && beyond >= missingMs
    : far >= minExcessMs &&
      (far >= Math.max(0, whole - (near ?? 0)) * minShare || (near !== null && near <= whole * asUsualShare));
