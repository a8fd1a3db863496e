import { busyReason, overlaps, windowsIn } from '../evidence.ts';
import { excessOf, isAsUsual, isBoth, isNear } from '../legs.ts';
import { type Rule, sure, trip } from '../rule.ts';
import { spanOfSpell } from '../spells.ts';
import { satelliteLoad } from './satellite-load.ts';
import { isEmbedded, satelliteRan } from './server-unreachable.ts';

/** Codes of a path that fell silent, as it does when packets are lost; not of one that was closed. */
const silence = new Set(['satellite-lost', 'path-lost', 'session-timeout']);
/** What was closed within this time was not silent. */
const silentAfterMs = 2_000;

export const clientNetworkLossy: Rule = {
  cause: 'client-network-lossy',
  judge(spell, evidence) {
    const { session, nameOf } = evidence;
    const during = spanOfSpell(spell, session);
    if (spell.kind === 'drop' || spell.kind === 'ended') {
      const isSilent =
        spell.reason !== null &&
        silence.has(spell.reason) &&
        session.events.some(
          (event) =>
            event.kind === 'lost' &&
            event.at - event.silentMs === spell.from &&
            event.silentMs >= silentAfterMs,
        );
      const noServer = session.events.find(
        (event) =>
          event.kind === 'server-unreachable' &&
          overlaps({ from: event.at - event.ms, to: event.at }, during),
      );
      const hasRun = satelliteRan(spell, evidence);
      if (noServer && (hasRun || !isEmbedded(spell, nameOf)))
        return {
          confidence: sure.strong,
          because: 'this machine had no working network',
          evidence: ['It reached neither the satellite nor the server.'],
        };
      // On another satellite, the first one may have failed as well as the way to it.
      if (!isSilent || spell.path?.kind !== 'relay' || spell.resumedOn?.via !== spell.path.via) return null;
      return {
        confidence: hasRun ? sure.strong : sure.named,
        because: `nothing arrived from ${nameOf(spell.path.via)}`,
        evidence: [
          'The connection fell silent without being closed.',
          ...(hasRun ? [`${nameOf(spell.path.via)} ran all the time.`] : []),
        ],
      };
    }
    const excess = excessOf(spell, evidence);
    const windows = windowsIn(session.windows, during);
    const unanswered = windows.reduce((sum, { toSatellite }) => sum + (toSatellite?.unanswered ?? 0), 0);
    if (!isNear(excess) && !isBoth(excess) && unanswered === 0) return null;
    if (windows.some(({ host }) => busyReason(host))) return null;
    const isDirect = spell.path !== null && spell.path.kind !== 'relay';
    const far = isDirect ? 'the workspace' : 'the satellite';
    const name = isDirect || !spell.path ? far : nameOf(spell.path.via);
    // What both sides of a satellite see is not the network of one, unless the satellite says that it was not late.
    const isLater = (excess.near ?? 0) >= (excess.far ?? 0);
    const load = satelliteLoad(spell, evidence);
    const isBusy = load === 'busy' && !isAsUsual(excess.far);
    if (isBusy || (isBoth(excess) && (load === 'unknown' || !isLater))) return null;
    const isOnlyNetwork =
      excess.isComparable &&
      (excess.near ?? 0) >= excess.whole / 2 &&
      !isBoth(excess) &&
      (load === 'idle' || spell.path?.kind !== 'relay' || excess.far !== null);
    return {
      confidence: !isNear(excess) && !isBoth(excess) ? sure.named : isOnlyNetwork ? sure.strong : sure.likely,
      because: `the network between this machine and ${far} lost or delayed packets`,
      evidence: [
        `Round trips to ${name} took ${trip(excess.near ?? 0)} longer than usual.`,
        ...(unanswered > 0 ? [`${unanswered} probes had no answer in time.`] : []),
      ],
    };
  },
  exclude(spell, evidence) {
    const { near } = excessOf(spell, evidence);
    return near !== null && near < 30 ? 'Round trips to the satellite were as usual.' : null;
  },
};
