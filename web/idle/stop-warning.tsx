import { policyName, spanText } from '@cde/api/idle-text.ts';
import { warningsOf } from '@cde/api/stop-warnings.ts';
import type { Workspace } from '@cde/api/workspaces.ts';
import { operates, useMe } from '../me.ts';
import { Icon } from '../ui/icons.tsx';
import { sayFailed } from '../ui/toast.tsx';
import { useStopClock } from './idle-panel.tsx';
import { useKeepAwake } from './keep-awake.tsx';

/** Says that a workspace stops soon, with the one button that prevents it. */
export function StopWarning({ workspace }: { workspace: Workspace }) {
  const me = useMe();
  const keep = useKeepAwake(workspace);
  const { idle, name } = workspace;
  const now = useStopClock(idle?.stopsAt);
  if (!idle?.stopsAt || !idle.cause || idle.held || idle.waitsForReport) return null;
  const stopsAt = Date.parse(idle.stopsAt);
  const leftMs = stopsAt - now;
  // Idleness begins with the last activity, or when a keep-awake expires.
  const warnings = warningsOf(idle.cause, stopsAt - Date.parse(idle.awakeBecause.at));
  if (!warnings.some((ms) => leftMs <= ms)) return null;
  // Neither activity nor a keep-awake postpones these.
  const isFinal = idle.cause === 'max-run' || idle.cause === 'request';
  return (
    <div className="notice stop-warning" role="alert">
      <Icon name="warning" />
      {/* The countdown is not part of what is read out, or it would be every second. */}
      <span className="hidden">{`${name} stops soon by ${policyName(idle.cause)}.`}</span>
      <span aria-hidden="true">
        <strong>
          {name} stops {leftMs <= 0 ? 'now' : `in ${spanText(leftMs)}`}
        </strong>{' '}
        by {policyName(idle.cause)}.{isFinal && ' This cannot be postponed: save your work.'}
      </span>
      {!isFinal && operates(me, workspace.owner) && (
        <button
          type="button"
          className="end button small"
          disabled={keep.isPending}
          onClick={() =>
            keep.mutate(
              { seconds: 3600, reason: '' },
              { onError: (error) => sayFailed(`Could not keep ${name} awake.`, error) },
            )
          }
        >
          Keep awake for 1 hour
        </button>
      )}
    </div>
  );
}
