import type { AwakeCause, Signal, StopCause } from '@cde/api/activity.ts';
import { causeText, pastCauseText, signalText } from '@cde/api/idle-text.ts';
import type { Stretch } from '../database/idle-schema.ts';
import type { NewEvent } from './activity-store.ts';

/** A stretch of activity in the timeline. */
export function signalEvent(
  workspaceId: string,
  { signal, since, at, by }: { signal: Signal } & Stretch,
): NewEvent {
  return {
    workspaceId,
    at: since,
    until: at,
    kind: 'signal',
    signal,
    ...(by !== undefined && { by }),
    text: signalText(signal, by),
  };
}

/** Why a workspace stops: what follows `stopped` in the reason of the build and in the timeline. */
export function whyStopped(because: AwakeCause, cause: StopCause, now: number): string {
  if (cause === 'max-run') return 'because it had reached its maximum run time';
  if (cause === 'dormant') return 'because no person has used it for a long time';
  const last = `the last activity was ${pastCauseText(because, now)}`;
  return cause === 'schedule' ? `by its daily schedule; ${last}` : `because it was idle; ${last}`;
}

/** Activity that came between the decision to stop and the stop. */
export function vetoEvent(
  { workspaceId }: { workspaceId: string },
  cause: StopCause,
  because: AwakeCause,
  at: number,
): NewEvent {
  return {
    workspaceId,
    at,
    kind: 'stop-vetoed',
    cause,
    ...(because.kind === 'signal' && { signal: because.signal }),
    ...('by' in because && because.by !== undefined && { by: because.by }),
    text: `stays awake: ${causeText(because, at)}`,
  };
}
