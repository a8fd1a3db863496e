import {
  type Build,
  cancelBuild,
  getWorkspace,
  restartWorkspace,
  startWorkspace,
  type Workspace,
} from '@cde/api/workspaces.ts';
import { useMutation } from '@tanstack/react-query';
import { useState } from 'react';
import { call, newIdempotencyKey } from '../client.ts';
import { sayFailed } from '../ui/toast.tsx';
import { useBuildBegan } from '../workspaces/build-began.ts';
import { UpdateDialog } from '../workspaces/update-dialog.tsx';

type Kind = 'start-workspace' | 'restart-workspace' | 'update-workspace' | 'cancel-build';

const labels: Record<Kind, string> = {
  'start-workspace': 'Start workspace',
  'restart-workspace': 'Restart workspace',
  'update-workspace': 'Update workspace…',
  'cancel-build': 'Cancel build',
};

/** Requests the build, or nothing for an update, which asks for parameters first. */
async function request(kind: Kind, workspace: Workspace): Promise<Build | null> {
  const params = { workspace: workspace.id };
  const idempotencyKey = newIdempotencyKey();
  switch (kind) {
    case 'start-workspace':
      return call(startWorkspace, { params, idempotencyKey });
    case 'restart-workspace':
      return call(restartWorkspace, { params, idempotencyKey });
    case 'cancel-build':
      return workspace.latestBuild && call(cancelBuild, { params: { build: workspace.latestBuild.id } });
    case 'update-workspace':
      return null;
  }
}

/** A button that does something with a workspace, given as `owner/name`. */
export function WorkspaceButton({ kind, workspace: ref }: { kind: Kind; workspace: string }) {
  const began = useBuildBegan();
  const [updating, setUpdating] = useState<Workspace | null>(null);
  const run = useMutation({
    mutationFn: async () => {
      const workspace = await call(getWorkspace, { params: { workspace: ref.replace('/', '~') } });
      return { workspace, build: await request(kind, workspace) };
    },
    onSuccess: ({ workspace, build }) => {
      if (build) began(build, workspace);
      if (kind === 'update-workspace') setUpdating(workspace);
    },
    onError: (error) => sayFailed(`Could not do this with ${ref}.`, error),
  });
  return (
    <>
      <button type="button" className="button small" disabled={run.isPending} onClick={() => run.mutate()}>
        {labels[kind]}
      </button>
      {updating && <UpdateDialog workspace={updating} onClose={() => setUpdating(null)} />}
    </>
  );
}
