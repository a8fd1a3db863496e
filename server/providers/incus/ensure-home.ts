import { ProviderFailure } from '../failure.ts';
import type { StepContext, WorkspaceSpec } from '../provider.ts';
import { formatQuantity, parseQuantity } from '../quantity.ts';
import type { IncusParts } from './parts.ts';
import { type HomePlace, readState, type State } from './state.ts';
import { chooseMember, ensureProject, findSurroundings } from './surroundings.ts';

/** Where the home is: that of the workspace, restored, or a new one. A home that existed is never replaced. */
export async function ensureHome(
  parts: IncusParts,
  spec: WorkspaceSpec,
  state: State,
  context: StepContext,
): Promise<{ home: HomePlace; size?: string }> {
  const { client, homes, about } = parts;
  const { workspaceId, restore } = spec;
  const section = spec.template.incus!;
  const hint = state.home ?? (restore && readState(restore.state).home);
  if (restore && !(await homes.restore(restore.workspaceId, workspaceId, hint))) throw homeLost();
  const size = spec.template.home.size ? parseQuantity(spec.template.home.size) : null;
  const wanted = { size, snapshots: section.snapshots };
  const home = await homes.find(workspaceId, hint);
  if (home) {
    if (home.project !== section.project)
      throw new ProviderFailure({
        code: 'project-change',
        message: `The home is in the Incus project ${home.project}, and the template wants ${section.project}.`,
        hint: 'Create a new workspace there and copy the files, or change incus.project back.',
        fault: 'user',
      });
    const bytes = await homes.adjust(home, wanted);
    return { home, ...(bytes !== null && { size: formatQuantity(bytes) }) };
  }
  if (state.home !== undefined || restore) throw homeLost();
  await ensureProject(client, section.project);
  const { pool } = await findSurroundings(client, section);
  const member = await chooseMember(client, { isClustered: about.isClustered, target: section.target });
  const of = { owner: spec.owner, workspaceName: spec.name };
  await homes.create(workspaceId, { ...of, ...wanted, project: section.project, pool, member });
  const created = await homes.find(workspaceId);
  if (!created) throw homeLost();
  context.log(`home: volume ${created.name} created in the pool ${pool}`);
  return { home: created, ...(size !== null && { size: formatQuantity(size) }) };
}

const homeLost = () =>
  new ProviderFailure({
    code: 'home-lost',
    message: 'The volume of the home is no longer on the Incus server.',
    detail: 'No empty home is put in its place.',
    hint: 'Restore the volume from a backup under its name, or delete this workspace.',
    fault: 'system',
  });
