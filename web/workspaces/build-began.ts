import type { Build, Workspace } from '@cde/api/workspaces.ts';
import { useQueryClient } from '@tanstack/react-query';
import { useKeepBuild } from '../live/live.ts';
import { refOf } from './queries.ts';

/** After an action: shows its build at once, and refetches the workspace in case no event arrives. */
export function useBuildBegan(): (build: Build, workspace: Workspace) => void {
  const client = useQueryClient();
  const keepBuild = useKeepBuild();
  return (build, workspace) => {
    keepBuild(build);
    void client.invalidateQueries({ queryKey: ['workspace', refOf(workspace)] });
    void client.invalidateQueries({ queryKey: ['workspaces'] });
    void client.invalidateQueries({ queryKey: ['builds', workspace.id] });
  };
}
