import {
  type DailySchedule,
  type IdleChoices,
  setIdleChoices,
  type WorkspaceActivity,
} from '@cde/api/activity.ts';
import { parseDuration, writeDuration } from '@cde/api/durations.ts';
import { momentText, scheduleText, stopAfterText } from '@cde/api/idle-text.ts';
import { weekdays, workdays } from '@cde/api/idle-values.ts';
import type { Workspace } from '@cde/api/workspaces.ts';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import { call } from '../client.ts';
import { Dialog } from '../ui/dialog.tsx';
import { Field, type FieldAria } from '../ui/field.tsx';
import { faultsOf } from '../ui/issues.ts';
import { Problem } from '../ui/problem.tsx';
import { sayDone } from '../ui/toast.tsx';
import { refreshIdle } from './keep-awake.tsx';

type Faults = Partial<Record<'stopAfter' | 'schedule' | 'neverStop' | 'reason', string>>;

/** The field of the form that sets a field of the request. */
function fieldOf(path: string): keyof Faults | null {
  if (path === 'stopAfterSeconds') return 'stopAfter';
  if (path === 'neverStop.reason') return 'reason';
  if (path.startsWith('neverStop')) return 'neverStop';
  return path.startsWith('schedule') ? 'schedule' : null;
}

const isTimeOfDay = (text: string) => /^([01]\d|2[0-3]):[0-5]\d$/.test(text);

/** Chooses when a workspace stops and starts by itself. */
export function ScheduleDialog({
  workspace,
  activity,
  onClose,
}: {
  workspace: Workspace;
  activity: WorkspaceActivity;
  onClose: () => void;
}) {
  const client = useQueryClient();
  const { choices, policy, defaults } = activity;
  const [stopMode, setStopMode] = useState(
    choices.stopAfterSeconds === undefined
      ? 'default'
      : choices.stopAfterSeconds === null
        ? 'never'
        : 'after',
  );
  const [scheduleMode, setScheduleMode] = useState(
    choices.schedule === undefined ? 'default' : choices.schedule === null ? 'none' : 'own',
  );
  const [neverStops, setNeverStops] = useState(Boolean(choices.neverStop));
  const [faults, setFaults] = useState<Faults>({});
  const save = useMutation({
    mutationFn: (body: IdleChoices) => call(setIdleChoices, { params: { workspace: workspace.id }, body }),
    onSuccess: async (after) => {
      client.setQueryData(['activity', workspace.id], after);
      sayDone(
        after.policy.limited.length > 0
          ? `Saved. The installation limits some of it.`
          : `Saved for ${workspace.name}.`,
      );
      onClose();
      await refreshIdle(client, workspace);
    },
    onError: (error) => setFaults(faultsOf(error, fieldOf)),
  });

  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const found: Faults = {};
    const data = new FormData(event.currentTarget);
    const text = (name: string) => String(data.get(name) ?? '').trim();
    const next: IdleChoices = {};
    if (stopMode === 'never') next.stopAfterSeconds = null;
    if (stopMode === 'after') {
      const seconds = parseDuration(text('stopAfter'));
      if (seconds === null) found.stopAfter = 'Write a length of time, such as 90m or 4h.';
      else next.stopAfterSeconds = seconds;
    }
    if (scheduleMode === 'none') next.schedule = null;
    if (scheduleMode === 'own') {
      const start = text('start');
      const stop = text('stop');
      const days = weekdays.filter((day) => data.get(day) === 'on');
      if (![start, stop].every((time) => time === '' || isTimeOfDay(time)))
        found.schedule = 'Write times as HH:MM, from 00:00 to 23:59.';
      else if (!start && !stop) found.schedule = 'Set a start, a stop, or both.';
      else if (days.length === 0) found.schedule = 'Choose at least one day.';
      else
        next.schedule = {
          ...(start && { start }),
          ...(stop && { stop }),
          days,
          timeZone: text('timeZone'),
        };
    }
    next.neverStop = null;
    if (neverStops) {
      const reason = text('reason');
      const kept = choices.neverStop;
      const length = text('neverStopFor');
      const seconds = parseDuration(length);
      if (!reason) found.reason = 'Say why. Everyone who sees the workspace sees it.';
      if (length === '' && kept) next.neverStop = { until: kept.until, reason };
      else if (seconds === null) found.neverStop = 'Write a length of time, such as 12h or 7d.';
      else next.neverStop = { until: new Date(Date.now() + seconds * 1000).toISOString(), reason };
    }
    const startOnConnect = data.get('startOnConnect') === 'on';
    if (startOnConnect !== policy.startOnConnect || choices.startOnConnect !== undefined)
      next.startOnConnect = startOnConnect;
    setFaults(found);
    if (Object.keys(found).length === 0) save.mutate(next);
  }

  return (
    <Dialog title={`When ${workspace.name} stops and starts`} onClose={onClose} wide>
      <form onSubmit={submit} noValidate>
        <Field label="Stop after" error={faults.stopAfter}>
          {(aria) => (
            <div className="row">
              <select
                {...aria}
                className="short-select"
                value={stopMode}
                onChange={(event) => setStopMode(event.target.value)}
              >
                <option value="default">
                  {asTemplate(defaults && stopAfterText(defaults.stopAfterSeconds))}
                </option>
                <option value="after">This long without activity</option>
                <option value="never">Never</option>
              </select>
              {stopMode === 'after' && (
                <input
                  name="stopAfter"
                  className="short-input"
                  aria-label="Length without activity"
                  placeholder="4h"
                  defaultValue={choices.stopAfterSeconds ? writeDuration(choices.stopAfterSeconds) : ''}
                  autoComplete="off"
                />
              )}
            </div>
          )}
        </Field>
        <Field label="Daily start and stop" error={faults.schedule}>
          {(aria) => (
            <select
              {...aria}
              className="short-select"
              value={scheduleMode}
              onChange={(event) => setScheduleMode(event.target.value)}
            >
              <option value="default">{asTemplate(defaults && scheduleText(defaults.schedule))}</option>
              <option value="own">At these times</option>
              <option value="none">None</option>
            </select>
          )}
        </Field>
        {scheduleMode === 'own' && <Times schedule={choices.schedule ?? policy.schedule} />}
        <label className="choice">
          <input
            type="checkbox"
            checked={neverStops}
            onChange={(event) => setNeverStops(event.target.checked)}
          />
          <span>
            Do not stop it for idleness
            <span className="hint">For a limited time and with a reason.</span>
          </span>
        </label>
        {neverStops && <NeverStop kept={choices.neverStop ?? null} faults={faults} />}
        <label className="choice">
          <input type="checkbox" name="startOnConnect" defaultChecked={policy.startOnConnect} />
          <span>
            Start it when I connect
            <span className="hint">
              With <code>cde ssh</code>, or an <code>ssh</code> typed at a terminal. Editors that reconnect
              never start it.
            </span>
          </span>
        </label>
        {Object.keys(faults).length === 0 && <Problem error={save.error} />}
        <div className="form-foot">
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" className="button primary" disabled={save.isPending}>
            Save
          </button>
        </div>
      </form>
    </Dialog>
  );
}

const asTemplate = (value: string | undefined) =>
  value === undefined ? 'As the template says' : `As the template says: ${value}`;

/** Not an input of the type `time`, which writes 8:30 PM where the rest of the page writes 20:30. */
function TimeOfDay(props: { aria: FieldAria; name: string; value: string | undefined; placeholder: string }) {
  const { aria, name, value, placeholder } = props;
  return (
    <input
      {...aria}
      name={name}
      className="short-input"
      maxLength={5}
      placeholder={placeholder}
      defaultValue={value}
      autoComplete="off"
      spellCheck={false}
    />
  );
}

function Times({ schedule }: { schedule: DailySchedule | null }) {
  const zones = Intl.supportedValuesOf('timeZone');
  const zone = schedule?.timeZone ?? Intl.DateTimeFormat().resolvedOptions().timeZone;
  return (
    <>
      <div className="times">
        <Field label="Start" optional>
          {(aria) => <TimeOfDay aria={aria} name="start" value={schedule?.start} placeholder="08:30" />}
        </Field>
        <Field label="Stop" optional hint="Once it is not in use.">
          {(aria) => <TimeOfDay aria={aria} name="stop" value={schedule?.stop} placeholder="19:00" />}
        </Field>
        <Field label="Time zone">
          {(aria) => (
            <select {...aria} name="timeZone" defaultValue={zone}>
              {(zones.includes(zone) ? zones : [zone, ...zones]).map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          )}
        </Field>
      </div>
      <fieldset className="row days">
        <legend className="legend">Days</legend>
        {weekdays.map((day) => (
          <label key={day} className="choice">
            <input type="checkbox" name={day} defaultChecked={(schedule?.days ?? workdays).includes(day)} />
            <span>{`${day.charAt(0).toUpperCase()}${day.slice(1)}`}</span>
          </label>
        ))}
      </fieldset>
    </>
  );
}

function NeverStop({ kept, faults }: { kept: { until: string; reason: string } | null; faults: Faults }) {
  return (
    <div className="times">
      <Field
        label="For how long"
        error={faults.neverStop}
        hint={kept ? `Empty: until ${momentText(kept.until, Date.now())}, as now.` : 'For example 12h or 7d.'}
      >
        {(aria) => <input {...aria} name="neverStopFor" autoComplete="off" />}
      </Field>
      <Field label="Reason" error={faults.reason}>
        {(aria) => <input {...aria} name="reason" maxLength={200} defaultValue={kept?.reason} />}
      </Field>
    </div>
  );
}
