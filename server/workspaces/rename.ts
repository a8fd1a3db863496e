import { Problem } from '@cde/api/problem.ts';
import { isDuplicate } from '../database/pool.ts';
import type { Caller, UserActor } from '../http/actor.ts';
import { writeAudit } from '../identity/audit/audit.ts';
import type { BuildDeps } from './builds/builds.ts';
import { lockWorkspace, nameTaken, setName, workspaceRef } from './store.ts';

/** Renames a workspace. The provider moves nothing: homes are found by id, and a namespace keeps its name. */
export async function renameWorkspace(
  { database, bus, now }: BuildDeps,
  caller: Caller<UserActor>,
  id: string,
  name: string,
): Promise<void> {
  let target = '';
  try {
    await database.db.transaction(async (tx) => {
      const before = await lockWorkspace(tx, id);
      if (!before) throw new Problem('workspace-not-found', 'This workspace no longer exists.');
      if (before.status === 'deleted' || before.desired === 'deleted')
        throw new Problem('workspace-deleted', `${before.name} is being deleted.`);
      if (before.name === name) return;
      target = await workspaceRef(tx, { ownerId: before.ownerId, name });
      await setName(tx, now(), id, name);
      await writeAudit(tx, caller, {
        action: 'workspace.rename',
        targetType: 'workspace',
        targetId: id,
        targetName: name,
        before: { name: before.name },
        after: { name },
      });
    });
  } catch (error) {
    if (isDuplicate(error, 'workspaces_owner_name')) throw nameTaken(target);
    throw error;
  }
  bus.publish({ workspaceId: id });
}
