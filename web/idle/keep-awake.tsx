import { createLease } from '@cde/api/activity.ts';
import { parseDuration } from '@cde/api/durations.ts';
import { keptAwakeText } from '@cde/api/idle-text.ts';
import type { Workspace } from '@cde/api/workspaces.ts';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import { call, newIdempotencyKey } from '../client.ts';
import { Dialog } from '../ui/dialog.tsx';
import { Field } from '../ui/field.tsx';
import { faultsOf } from '../ui/issues.ts';
import { Problem } from '../ui/problem.tsx';
import { sayDone, sayFailed } from '../ui/toast.tsx';

/** Keeps a workspace awake, and shows the result at once. */
export function useKeepAwake(workspace: Workspace) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (body: { seconds: number; reason: string }) =>
      call(createLease, { params: { workspace: workspace.id }, body, idempotencyKey: newIdempotencyKey() }),
    onSuccess: (lease) => {
      sayDone(`${workspace.name} ${keptAwakeText(lease, Date.now())}.`);
      return refreshIdle(client, workspace);
    },
  });
}

export async function refreshIdle(
  client: ReturnType<typeof useQueryClient>,
  { id, owner, name }: Workspace,
): Promise<void> {
  await Promise.all([
    client.invalidateQueries({ queryKey: ['activity', id] }),
    client.invalidateQueries({ queryKey: ['activity-events', id] }),
    client.invalidateQueries({ queryKey: ['workspace', `${owner}~${name}`] }),
  ]);
}

const choices = [1, 3];

export function KeepAwakeButtons({ workspace }: { workspace: Workspace }) {
  const [asking, setAsking] = useState(false);
  const keep = useKeepAwake(workspace);
  return (
    <fieldset className="row keep-awake" disabled={keep.isPending}>
      <legend>Keep awake for</legend>
      {choices.map((hours) => (
        <button
          key={hours}
          type="button"
          className="button small"
          onClick={() =>
            keep.mutate(
              { seconds: hours * 3600, reason: '' },
              { onError: (error) => sayFailed(`Could not keep ${workspace.name} awake.`, error) },
            )
          }
        >
          {hours === 1 ? '1 hour' : `${hours} hours`}
        </button>
      ))}
      <button type="button" className="button small" onClick={() => setAsking(true)}>
        Other…
      </button>
      {asking && <KeepAwakeDialog workspace={workspace} onClose={() => setAsking(false)} />}
    </fieldset>
  );
}

function KeepAwakeDialog({ workspace, onClose }: { workspace: Workspace; onClose: () => void }) {
  const keep = useKeepAwake(workspace);
  const [length, setLength] = useState('');
  const [reason, setReason] = useState('');
  const [error, setError] = useState<string>();
  function submit(event: FormEvent) {
    event.preventDefault();
    const seconds = parseDuration(length.trim());
    if (seconds === null) return setError('Write a length of time, such as 90m or 3h.');
    setError(undefined);
    keep.mutate(
      { seconds, reason: reason.trim() },
      {
        onSuccess: onClose,
        onError: (failed) => setError(faultsOf(failed, (path) => (path === 'seconds' ? path : null)).seconds),
      },
    );
  }
  return (
    <Dialog title={`Keep ${workspace.name} awake`} onClose={onClose}>
      <form onSubmit={submit} noValidate>
        <Field label="For how long" hint="For example 90m or 8h." error={error}>
          {(aria) => (
            <input
              {...aria}
              value={length}
              autoComplete="off"
              spellCheck={false}
              onChange={(event) => setLength(event.target.value)}
            />
          )}
        </Field>
        <Field label="Reason" optional hint="Everyone who sees the workspace sees it.">
          {(aria) => (
            <input
              {...aria}
              value={reason}
              maxLength={200}
              onChange={(event) => setReason(event.target.value)}
            />
          )}
        </Field>
        {!error && <Problem error={keep.error} />}
        <div className="form-foot">
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" className="button primary" disabled={keep.isPending}>
            Keep awake
          </button>
        </div>
      </form>
    </Dialog>
  );
}
