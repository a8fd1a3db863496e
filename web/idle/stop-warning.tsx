import { policyName, spanText } from '@cde/api/idle-text.ts';
import { isPostponable } from '@cde/api/stop-warnings.ts';
import type { Workspace } from '@cde/api/workspaces.ts';
import { operates, useMe } from '../me.ts';
import { Icon } from '../ui/icons.tsx';
import { sayFailed } from '../ui/toast.tsx';
import { useKeepAwake } from './keep-awake.tsx';
import { stopsSoon, useStopClock } from './stop-clock.ts';
import './idle.css';

/** Says that a workspace stops soon, with the one button that prevents it. */
export function StopWarning({ workspace }: { workspace: Workspace }) {
  const me = useMe();
  const keep = useKeepAwake(workspace);
  const { idle, name } = workspace;
  const now = useStopClock(idle?.stopsAt);
  if (!idle?.stopsAt || !idle.cause || !stopsSoon(idle, now)) return null;
  const leftMs = Date.parse(idle.stopsAt) - now;
  const isFinal = !isPostponable(idle.cause);
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
