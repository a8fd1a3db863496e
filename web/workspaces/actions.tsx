import {
  cancelBuild,
  restartWorkspace,
  startWorkspace,
  stopWorkspace,
  type Workspace,
} from '@cde/api/workspaces.ts';
import { useMutation } from '@tanstack/react-query';
import { useState } from 'react';
import { call, newIdempotencyKey } from '../client.ts';
import { operates, updates, useMe } from '../me.ts';
import { Icon, Spinner } from '../ui/icons.tsx';
import { Menu, type MenuItem } from '../ui/menu.tsx';
import { sayFailed } from '../ui/toast.tsx';
import { useBuildBegan } from './build-began.ts';
import { DeleteDialog } from './delete-dialog.tsx';
import { RenameDialog } from './rename-dialog.tsx';
import { busy } from './status.tsx';
import { UpdateDialog } from './update-dialog.tsx';

const operations = { start: startWorkspace, stop: stopWorkspace, restart: restartWorkspace } as const;
type Operation = keyof typeof operations;

/** Buttons and a menu for the actions that a workspace currently allows. `compact`: icons only, for a row. */
export function Actions({ workspace, compact = false }: { workspace: Workspace; compact?: boolean }) {
  const me = useMe();
  const began = useBuildBegan();
  const [dialog, setDialog] = useState<'delete' | 'update' | 'rename' | null>(null);
  const operate = useMutation({
    mutationFn: (operation: Operation) =>
      call(operations[operation] as typeof startWorkspace, {
        params: { workspace: workspace.id },
        idempotencyKey: newIdempotencyKey(),
      }),
    onSuccess: (build) => began(build, workspace),
    onError: (error, operation) => sayFailed(`Could not ${operation} ${workspace.name}.`, error),
  });
  const cancel = useMutation({
    mutationFn: (build: string) => call(cancelBuild, { params: { build } }),
    onSuccess: (build) => began(build, workspace),
    onError: (error) => sayFailed('Could not cancel.', error),
  });
  if (!operates(me, workspace.owner) || workspace.status === 'deleted') return null;

  const canUpdate = updates(me, workspace.owner);
  const isBusy = busy(workspace);
  const up = workspace.desired === 'running' && workspace.status !== 'failed';
  const items: MenuItem[] = [];
  if (workspace.status === 'failed') items.push({ label: 'Stop', run: () => operate.mutate('stop') });
  if (workspace.status === 'running') items.push({ label: 'Restart', run: () => operate.mutate('restart') });
  items.push({
    label: `${workspace.outdated ? 'Update…' : 'Change parameters…'}${canUpdate ? '' : ' (only by its owner)'}`,
    run: () => setDialog('update'),
    disabled: isBusy || !canUpdate,
  });
  items.push({ label: 'Rename…', run: () => setDialog('rename') });
  items.push({ label: 'Delete…', run: () => setDialog('delete'), danger: true });

  const main = isBusy
    ? { word: 'Cancel', icon: 'cross' as const, run: () => cancel.mutate(workspace.latestBuild!.id) }
    : up
      ? { word: 'Stop', icon: 'stop' as const, run: () => operate.mutate('stop') }
      : { word: 'Start', icon: 'play' as const, run: () => operate.mutate('start') };
  const waiting =
    operate.isPending || cancel.isPending || (isBusy && workspace.latestBuild?.cancelRequested === true);
  const cannot = waiting || workspace.status === 'deleting';
  return (
    <>
      {!compact && workspace.outdated && canUpdate && !isBusy && (
        <button type="button" className="button" onClick={() => setDialog('update')}>
          Update…
        </button>
      )}
      <button
        type="button"
        className={`button ${compact ? 'small' : ''} ${main.word === 'Start' && !compact ? 'primary' : ''}`}
        disabled={cannot}
        aria-label={`${main.word} ${workspace.name}`}
        onClick={main.run}
      >
        {waiting ? <Spinner /> : <Icon name={main.icon} />}
        {main.word}
      </button>
      <Menu
        label={`More actions for ${workspace.name}`}
        items={items}
        className={compact ? 'button icon-only quiet' : 'button icon-only'}
      >
        <Icon name="more" />
      </Menu>
      {dialog === 'delete' && <DeleteDialog workspace={workspace} onClose={() => setDialog(null)} />}
      {dialog === 'rename' && <RenameDialog workspace={workspace} onClose={() => setDialog(null)} />}
      {dialog === 'update' && <UpdateDialog workspace={workspace} onClose={() => setDialog(null)} />}
    </>
  );
}
