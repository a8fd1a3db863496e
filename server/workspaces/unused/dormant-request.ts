import { Problem } from '@cde/api/problem.ts';
import type { BuildRequest } from '../model.ts';
import { lockWorkspace } from '../store.ts';

/** Requests that a stopped workspace becomes dormant. A start that was requested meanwhile wins. */
export function dormantRequest(workspaceId: string, reason: string): BuildRequest {
  return {
    workspaceId,
    transition: 'stop',
    makesDormant: true,
    stopCause: 'dormant',
    reason,
    action: 'cleanup.make-dormant',
    async confirm(tx) {
      const workspace = await lockWorkspace(tx, workspaceId);
      if (workspace?.status === 'stopped' && workspace.desired === 'stopped') return;
      throw new Problem('workspace-busy', 'The workspace is in use again.');
    },
  };
}
