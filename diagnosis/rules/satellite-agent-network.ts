import { busyReason, cover, overlaps, windowsIn } from '../evidence.ts';
import { excessOf, isBoth, isFar } from '../legs.ts';
import { type Rule, sure, trip } from '../rule.ts';
import { spanOfSpell } from '../spells.ts';
import { satelliteLoad } from './satellite-load.ts';

export const satelliteAgentNetwork: Rule = {
  cause: 'satellite-agent-network',
  judge(spell, evidence) {
    const { session, workspace, agentStarts, builds, nameOf } = evidence;
    if (spell.path?.kind !== 'relay') return null;
    const name = nameOf(spell.path.via);
    const during = spanOfSpell(spell, session);
    if (spell.kind === 'drop' || spell.kind === 'ended') {
      if (spell.reason !== 'agent-lost') return null;
      const around = { from: during.from - 5_000, to: during.to + 5_000 };
      const isRestarted =
        agentStarts.some((at) => at >= around.from && at <= around.to) ||
        builds.some((build) =>
          overlaps({ from: build.requestedAt, to: build.finishedAt ?? Infinity }, around),
        );
      if (isRestarted) return null;
      return {
        confidence: sure.strong,
        because: `the network between ${name} and the workspace failed`,
        evidence: ['The satellite lost the workspace’s connection, and the workspace kept running.'],
      };
    }
    const excess = excessOf(spell, evidence);
    const isLater = (excess.far ?? 0) > (excess.near ?? 0);
    if (isBoth(excess) ? !isLater || satelliteLoad(spell, evidence) !== 'idle' : !isFar(excess)) return null;
    const windows = windowsIn(workspace, during);
    if (windows.some(({ host }) => busyReason(host))) return null;
    return {
      // A workspace that has not reported may be too busy for it.
      confidence:
        cover(windows, during) && excess.far !== null && !isBoth(excess) ? sure.strong : sure.likely,
      because: `the network between ${name} and the workspace lost or delayed packets`,
      evidence: [
        `Round trips from the workspace to ${name} took ${trip(excess.far ?? excess.beyond!)} longer than usual.`,
      ],
    };
  },
  exclude(spell, evidence) {
    const { far } = excessOf(spell, evidence);
    return far !== null && far < 30 ? 'Round trips between satellite and workspace were as usual.' : null;
  },
};
