import { Problem } from '@cde/api/problem.ts';
import { eq } from 'drizzle-orm';
import { type Database, isDuplicate } from '../database/pool.ts';
import { workspaces } from '../database/schema.ts';
import type { Bus } from '../events/bus.ts';
import type { Caller, UserActor } from '../http/actor.ts';
import { writeAudit } from '../identity/audit.ts';

/**
 * Gives a workspace another name. Nothing of the provider is moved: homes are found by the id, and a namespace keeps the
 * name that it was made with.
 */
export async function renameWorkspace(
  deps: { database: Database; bus: Bus; now: () => Date },
  caller: Caller<UserActor>,
  id: string,
  name: string,
): Promise<void> {
  const { database, bus, now } = deps;
  try {
    await database.db.transaction(async (tx) => {
      const [before] = await tx.select().from(workspaces).where(eq(workspaces.id, id)).for('update');
      if (!before) throw new Problem('workspace-not-found', 'This workspace does not exist any more.');
      if (before.status === 'deleted' || before.desired === 'deleted')
        throw new Problem('workspace-deleted', `${before.name} is being deleted.`);
      if (before.name === name) return;
      await tx.update(workspaces).set({ name, updatedAt: now() }).where(eq(workspaces.id, id));
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
    if (isDuplicate(error, 'workspaces_owner_name'))
      throw new Problem('workspace-name-taken', `There is a workspace named ${name} already.`, {
        hint: 'Choose another name, or delete the other.',
      });
    throw error;
  }
  bus.publish({ workspaceId: id });
}
