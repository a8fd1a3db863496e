import { keepWorkspace } from '@cde/api/activity.ts';
import { deletionText } from '@cde/api/idle-text.ts';
import type { Workspace } from '@cde/api/workspaces.ts';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { call, newIdempotencyKey } from '../client.ts';
import { operates, useMe } from '../me.ts';
import { Icon } from '../ui/icons.tsx';
import { useNow } from '../ui/time.tsx';
import { sayDone, sayFailed } from '../ui/toast.tsx';
import { refreshIdle } from './keep-awake.tsx';
import './idle.css';

/** Says that a workspace is archived or will be deleted, with the one button that prevents it. */
export function UnusedNotice({ workspace }: { workspace: Workspace }) {
  const me = useMe();
  const client = useQueryClient();
  const now = useNow(60_000);
  const keep = useMutation({
    mutationFn: () =>
      call(keepWorkspace, {
        params: { workspace: workspace.id },
        body: {},
        idempotencyKey: newIdempotencyKey(),
      }),
    onSuccess: () => {
      sayDone(`${workspace.name} is kept.`);
      return refreshIdle(client, workspace);
    },
    onError: (error) => sayFailed(`Could not keep ${workspace.name}.`, error),
  });
  const { archivedAt, deletesAt } = workspace;
  if (workspace.desired === 'deleted' || (!archivedAt && !deletesAt)) return null;
  return (
    <div className="notice stop-warning" role="status">
      {deletesAt && <Icon name="warning" />}
      <span>
        {deletesAt ? deletionText(deletesAt, now) : 'Archived: it is missing from the list of workspaces.'}
      </span>
      {operates(me, workspace.owner) && (
        <button
          type="button"
          className="end button small"
          disabled={keep.isPending}
          onClick={() => keep.mutate()}
        >
          Keep
        </button>
      )}
    </div>
  );
}
