import { busyLoopMs, cover, type Evidence, type SatelliteWindow, windowsIn } from '../evidence.ts';
import { type Spell, spanOfSpell } from '../spells.ts';

/** What the satellite of the path reported of itself around a spell. */
export function satelliteReports(spell: Spell, { session, satellites, nameOf }: Evidence): SatelliteWindow[] {
  const name = spell.path?.kind === 'relay' ? nameOf(spell.path.via) : '';
  return windowsIn(satellites, spanOfSpell(spell, session)).filter(({ satellite }) => satellite === name);
}

/** Whether the satellite handled packets late, by its own account. */
export function satelliteLoad(spell: Spell, evidence: Evidence): 'busy' | 'idle' | 'unknown' {
  const reports = satelliteReports(spell, evidence);
  if (reports.some(({ loopDelayMs }) => loopDelayMs >= busyLoopMs)) return 'busy';
  return cover(reports, spanOfSpell(spell, evidence.session)) ? 'idle' : 'unknown';
}
