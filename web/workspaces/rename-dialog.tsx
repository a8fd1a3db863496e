import { renameWorkspace, type Workspace } from '@cde/api/workspaces.ts';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { useMatchRoute, useNavigate } from '@tanstack/react-router';
import { type FormEvent, useState } from 'react';
import { call } from '../client.ts';
import { Dialog } from '../ui/dialog.tsx';
import { Field } from '../ui/field.tsx';
import { Problem } from '../ui/problem.tsx';

/** Renames a workspace. The workspace's own page moves to its new URL. */
export function RenameDialog({ workspace, onClose }: { workspace: Workspace; onClose: () => void }) {
  const client = useQueryClient();
  const navigate = useNavigate();
  const matchRoute = useMatchRoute();
  const [name, setName] = useState(workspace.name);
  const rename = useMutation({
    mutationFn: () => call(renameWorkspace, { params: { workspace: workspace.id }, body: { name } }),
    onSuccess: async (renamed) => {
      onClose();
      if (
        matchRoute({
          to: '/workspaces/$owner/$name',
          params: { owner: workspace.owner, name: workspace.name },
        })
      )
        await navigate({
          to: '/workspaces/$owner/$name',
          params: { owner: renamed.owner, name: renamed.name },
        });
      await client.invalidateQueries({ queryKey: ['workspaces'] });
    },
  });
  function submit(event: FormEvent) {
    event.preventDefault();
    rename.mutate();
  }
  return (
    <Dialog title={`Rename ${workspace.name}`} onClose={onClose}>
      <form onSubmit={submit}>
        <Field label="New name" hint="Lower-case letters, digits and hyphens, at most 32.">
          {(aria) => (
            <input
              {...aria}
              className="input"
              value={name}
              autoComplete="off"
              spellCheck={false}
              onChange={(event) => setName(event.target.value)}
            />
          )}
        </Field>
        <p className="muted">
          The home and open sessions are not affected. The host name for ssh and the URLs of shared ports
          change.
        </p>
        <Problem error={rename.error} />
        <div className="form-foot">
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
          <button
            type="submit"
            className="button primary"
            disabled={rename.isPending || name === workspace.name || name === ''}
          >
            Rename
          </button>
        </div>
      </form>
    </Dialog>
  );
}
