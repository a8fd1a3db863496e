import { deleteWorkspace, type Workspace } from '@cde/api/workspaces.ts';
import { useMutation } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import { call } from '../client.ts';
import { TypedWord } from '../ui/confirm.tsx';
import { Dialog } from '../ui/dialog.tsx';
import { Problem } from '../ui/problem.tsx';
import { useBuildBegan } from './build-began.ts';

/** Asks what to do with the home. Discarding it requires typing the name, because it cannot be undone. */
export function DeleteDialog({ workspace, onClose }: { workspace: Workspace; onClose: () => void }) {
  const began = useBuildBegan();
  const [home, setHome] = useState<'keep' | 'discard'>('keep');
  const [typed, setTyped] = useState('');
  const remove = useMutation({
    mutationFn: () => call(deleteWorkspace, { params: { workspace: workspace.id }, query: { home } }),
    onSuccess: (build) => {
      began(build, workspace);
      onClose();
    },
  });
  const sure = home === 'keep' || typed === workspace.name;
  function submit(event: FormEvent) {
    event.preventDefault();
    if (sure) remove.mutate();
  }
  return (
    <Dialog title={`Delete ${workspace.owner}/${workspace.name}`} onClose={onClose}>
      <form onSubmit={submit}>
        <p>
          This stops the workspace and deletes everything outside its home. What do you want to do with the
          home?
        </p>
        <fieldset className="field">
          <legend className="hidden">The home</legend>
          <div className="choices">
            <label className="choice">
              <input type="radio" name="home" checked={home === 'keep'} onChange={() => setHome('keep')} />
              <span>
                Keep it for the grace period
                <span className="hint">
                  Until it ends, you can restore the home into a new workspace from the Homes page.
                </span>
              </span>
            </label>
            <label className="choice">
              <input
                type="radio"
                name="home"
                checked={home === 'discard'}
                onChange={() => setHome('discard')}
              />
              <span>
                Discard it now
                <span className="hint">All files in it are deleted permanently.</span>
              </span>
            </label>
          </div>
        </fieldset>
        {home === 'discard' && (
          <TypedWord word={workspace.name} to="discard its home" value={typed} onChange={setTyped} />
        )}
        <Problem error={remove.error} />
        <div className="form-foot">
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" className="button danger filled" disabled={!sure || remove.isPending}>
            {home === 'keep' ? 'Delete' : 'Delete and discard the home'}
          </button>
        </div>
      </form>
    </Dialog>
  );
}
