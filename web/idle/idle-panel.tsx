import { endLease, type Lease, type WorkspaceActivity } from '@cde/api/activity.ts';
import {
  causeText,
  clockText,
  leaseOwner,
  limitedText,
  neverStopText,
  policyLabels,
  scheduleText,
  spanText,
  startValue,
  stopAfterText,
  stopValue,
  unusedAfterText,
  whenText,
} from '@cde/api/idle-text.ts';
import type { Workspace } from '@cde/api/workspaces.ts';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { Fragment, useEffect, useState } from 'react';
import { CallError, call } from '../client.ts';
import { operates, useMe } from '../me.ts';
import { Icon } from '../ui/icons.tsx';
import { Problem } from '../ui/problem.tsx';
import { useNow } from '../ui/time.tsx';
import { sayFailed } from '../ui/toast.tsx';
import { KeepAwakeButtons, refreshIdle } from './keep-awake.tsx';
import { activityQuery } from './queries.ts';
import { ScheduleDialog } from './schedule-dialog.tsx';
import { useStopClock } from './stop-clock.ts';
import './idle.css';

// Agents report every 30 s; events of the workspace come at once.
const askEveryMs = 30_000;

/** Why a workspace is awake and when it stops, who keeps it awake, and the policy that applies. */
export function IdlePanel({ workspace }: { workspace: Workspace }) {
  const me = useMe();
  const client = useQueryClient();
  const [changing, setChanging] = useState(false);
  const query = useQuery({ ...activityQuery(workspace.id), refetchInterval: askEveryMs });
  const stamp = JSON.stringify([workspace.status, workspace.idle ?? null]);
  useEffect(() => {
    if (stamp) void client.invalidateQueries({ queryKey: ['activity', workspace.id] });
  }, [client, workspace.id, stamp]);

  const activity = query.data;
  // A server of an older release.
  if (!activity && query.error instanceof CallError && query.error.status === 404) return null;
  const operatesIt = operates(me, workspace.owner);
  return (
    <section className="panel" aria-labelledby="idle-title">
      <header>
        <h2 id="idle-title">Stop and start</h2>
        {activity && operatesIt && (
          <button type="button" className="end button small" onClick={() => setChanging(true)}>
            Schedule…
          </button>
        )}
      </header>
      <div className="body stack tight">
        {query.error && !activity && <Problem error={query.error} retry={() => query.refetch()} />}
        {activity && (
          <>
            <State workspace={workspace} activity={activity} />
            {activity.leases.length > 0 && (
              <Leases workspace={workspace} leases={activity.leases} canEnd={operatesIt} />
            )}
            {operatesIt && activity.state && <KeepAwakeButtons workspace={workspace} />}
            <Policy activity={activity} />
          </>
        )}
      </div>
      {changing && activity && (
        <ScheduleDialog workspace={workspace} activity={activity} onClose={() => setChanging(false)} />
      )}
    </section>
  );
}

function State({ workspace, activity }: { workspace: Workspace; activity: WorkspaceActivity }) {
  const { state, startsAt } = activity;
  const now = useStopClock(state?.stopsAt);
  if (!state)
    return (
      <>
        <p className="muted">{workspace.name} is not running.</p>
        {startsAt && (
          <dl className="facts idle">
            <dt>Starts</dt>
            <dd>{startValue(startsAt, now)}</dd>
          </dl>
        )}
      </>
    );
  return (
    <dl className="facts idle">
      <dt>Awake because of</dt>
      <dd>{causeText(state.awakeBecause, now)}</dd>
      <dt>Stops</dt>
      <dd>{stopValue(state, now)}</dd>
      {state.waitsForReport && activity.reportedAt && (
        <>
          <dt>Last report</dt>
          <dd>{whenText(activity.reportedAt, now)}</dd>
        </>
      )}
    </dl>
  );
}

function Leases({ workspace, leases, canEnd }: { workspace: Workspace; leases: Lease[]; canEnd: boolean }) {
  const client = useQueryClient();
  const now = useNow(20_000);
  const end = useMutation({
    mutationFn: (lease: Lease) =>
      call(endLease, { params: { workspace: workspace.id, lease: lease.id } }).catch((error) => {
        // It expired meanwhile.
        if (!(error instanceof CallError && error.status === 404)) throw error;
      }),
    onSuccess: () => refreshIdle(client, workspace),
    onError: (error) => sayFailed('Could not end the keep-awake.', error),
  });
  return (
    <ul className="leases" aria-label="What keeps it awake">
      {leases.map((lease) => (
        <li key={lease.id}>
          <span>
            Keep-awake by {leaseOwner(lease.by)} until {clockText(lease.runEndsAt ?? lease.expiresAt, now)}
            {lease.runEndsAt && ', when the maximum run time ends'}
            {lease.reason && <span className="hint">{lease.reason}</span>}
          </span>
          {canEnd && (
            <button
              type="button"
              className="button icon-only quiet"
              title="End it"
              disabled={end.isPending}
              onClick={() => end.mutate(lease)}
            >
              <Icon name="cross" />
              <span className="hidden">End the keep-awake by {leaseOwner(lease.by)}</span>
            </button>
          )}
        </li>
      ))}
    </ul>
  );
}

function Policy({ activity: { policy } }: { activity: WorkspaceActivity }) {
  const now = useNow(60_000);
  const { maxRunSeconds, dormantAfterDays, archiveAfterDays, deleteAfterDays, neverStop } = policy;
  const facts: [keyof typeof policyLabels, string | false | null | undefined | 0][] = [
    ['stopAfterSeconds', stopAfterText(policy.stopAfterSeconds)],
    ['maxRunSeconds', maxRunSeconds && spanText(maxRunSeconds * 1000)],
    ['dormantAfterDays', dormantAfterDays && unusedAfterText(dormantAfterDays)],
    ['archiveAfterDays', archiveAfterDays && unusedAfterText(archiveAfterDays)],
    ['deleteAfterDays', deleteAfterDays && `${unusedAfterText(deleteAfterDays)}, after notice`],
    ['schedule', scheduleText(policy.schedule)],
    ['neverStop', neverStop && neverStopText(neverStop, now)],
    ['startOnConnect', policy.startOnConnect && 'on'],
  ];
  return (
    <dl className="facts idle policy">
      {facts.map(
        ([setting, value]) =>
          value && (
            <Fragment key={setting}>
              <dt>{capitalized(policyLabels[setting])}</dt>
              <dd>{value}</dd>
            </Fragment>
          ),
      )}
      {policy.limited.length > 0 && (
        <>
          <dt>Limited</dt>
          <dd>by the installation: {policy.limited.map(limitedText).join(', ')}</dd>
        </>
      )}
    </dl>
  );
}

const capitalized = (text: string) => `${text.charAt(0).toUpperCase()}${text.slice(1)}`;
