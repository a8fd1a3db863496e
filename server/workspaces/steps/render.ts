import { eq } from 'drizzle-orm';
import { templateVersions } from '../../database/schema.ts';
import { hashSecret } from '../../identity/secrets.ts';
import { renderTemplate } from '../../templates/render.ts';
import { advanceStages } from '../statuses.ts';
import type { StepDeps } from './deps.ts';
import { fail } from './fail.ts';
import { serverLine } from './log-lines.ts';
import { type BuildSnapshot, type Outcome, refOf } from './outcome.ts';

/** Renders the template version with the build's parameters. */
export async function render(
  { database, now, agentToken }: Pick<StepDeps, 'database' | 'now' | 'agentToken'>,
  snapshot: BuildSnapshot,
): Promise<Outcome> {
  const { workspace, owner, build } = snapshot;
  const [version] = await database.db
    .select()
    .from(templateVersions)
    .where(eq(templateVersions.id, build.templateVersionId));
  const result = renderTemplate(version!.content, build.parameters, {
    workspace: { id: workspace.id, name: workspace.name, owner: owner.username },
    owner: { name: owner.name, email: owner.email ?? '' },
  });
  const at = now();
  if ('faults' in result)
    return fail(at, snapshot, {
      code: 'template-invalid',
      message: 'The template cannot be rendered with these parameters.',
      detail: result.faults.map((fault) => `${fault.path}: ${fault.message}`).join('; '),
      hint: 'Change the parameters, or ask a template admin to fix the template. Then update the workspace.',
      actions: [{ kind: 'update-workspace', workspace: refOf(snapshot) }],
      fault: 'user',
    });
  return {
    workspace: { agentBuildId: build.id, agentTlsKey: null, agentSeenAt: null, agentStats: null },
    build: {
      rendered: result.ok,
      agentTokenHash: hashSecret(agentToken(build.id)),
      stages: advanceStages(build.stages, 'provision', at),
    },
    lines: [serverLine(at, 'render', `template version ${version!.number} rendered`)],
    requeue: 'now',
  };
}
