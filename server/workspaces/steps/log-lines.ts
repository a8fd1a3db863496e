import type { Stage } from '@cde/api/workspaces.ts';
import type { StepContext } from '../../providers/provider.ts';
import type { NewLine } from '../builds/build-log.ts';

/** A line of the build log from the server itself. */
export function serverLine(at: Date, stage: Stage, text: string, level: NewLine['level'] = 'info'): NewLine {
  return { at, stage, source: 'server', level, text };
}

/** Collects what a provider logs during one step, to be committed with its outcome. */
export function collectLines(now: () => Date, stage: Stage): { context: StepContext; lines: NewLine[] } {
  const lines: NewLine[] = [];
  return {
    lines,
    context: {
      log: (text, level = 'info') => lines.push({ at: now(), stage, source: 'provider', level, text }),
    },
  };
}
