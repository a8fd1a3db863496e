import { Problem } from '@cde/api/problem.ts';
import type { ParameterValues } from '@cde/api/template-parameters.ts';
import { v7 } from 'uuid';
import { isDuplicate } from '../database/pool.ts';
import type { Caller, UserActor } from '../http/actor.ts';
import { writeAudit } from '../identity/audit/audit.ts';
import { insertBuild } from './builds/build-store.ts';
import type { BuildDeps } from './builds/builds.ts';
import { claimHome } from './homes.ts';
import { resolveParameters } from './model.ts';
import { enqueueReconcile } from './queue.ts';
import { activeVersion, findUserId, insertWorkspace, nameTaken } from './store.ts';

export interface NewWorkspace {
  name: string;
  owner?: string | undefined;
  template: string;
  parameters: ParameterValues;
  start: boolean;
  /** The id of a retained home to restore. */
  home?: string | undefined;
}

/**
 * Creates a workspace and, with `start`, its first build. Returns its id. `authorizeForOwner` is called for an owner
 * other than the caller.
 */
export async function createWorkspace(
  { database, bus, now, providers }: BuildDeps & { providers: { has(name: string): boolean } },
  caller: Caller<UserActor>,
  authorizeForOwner: (ownerId: string) => void,
  input: NewWorkspace,
): Promise<string> {
  const id = v7();
  const { username } = caller.actor;
  const ownerName = input.owner === undefined || input.owner === 'me' ? username : input.owner;
  try {
    await database.db.transaction(async (tx) => {
      let ownerId = caller.actor.userId;
      if (ownerName !== username) {
        const found = await findUserId(tx, ownerName);
        // First, so that callers without permission do not learn which users exist.
        authorizeForOwner(found ?? '');
        if (!found) throw new Problem('user-not-found', `There is no user ${ownerName}.`);
        ownerId = found;
      }
      const active = await activeVersion(tx, { name: input.template });
      if (!active)
        throw new Problem('template-not-found', `There is no template ${input.template}.`, {
          actions: [{ kind: 'list-templates' }],
        });
      const { version, template } = active;
      const { provider } = version.content;
      if (!providers.has(provider)) throw providerNotAvailable(provider);
      const parameters = resolveParameters(template.name, version.content.parameters, input.parameters);
      if (input.home !== undefined) await claimHome(tx, caller.actor, input.home, { ownerId, provider });
      await insertWorkspace(tx, now(), {
        id,
        ownerId,
        restoreFrom: input.home ?? null,
        name: input.name,
        templateId: template.id,
        templateVersionId: version.id,
        parameters,
        provider,
        desired: input.start ? 'running' : 'stopped',
        status: input.start ? 'pending' : 'stopped',
      });
      if (input.start)
        await insertBuild(tx, now(), id, {
          transition: 'start',
          templateVersionId: version.id,
          parameters,
          options: {},
          reason: 'created',
          initiator: caller.actor,
        });
      await writeAudit(tx, caller, {
        action: 'workspace.create',
        targetType: 'workspace',
        targetId: id,
        targetName: input.name,
        after: { template: template.name, templateVersion: version.number, parameters, ownerId },
      });
      if (input.start) await enqueueReconcile(tx, id);
    });
  } catch (error) {
    if (isDuplicate(error, 'workspaces_owner_name')) throw nameTaken(`${ownerName}/${input.name}`);
    throw error;
  }
  bus.publish({ workspaceId: id });
  return id;
}

function providerNotAvailable(provider: string): Problem {
  return new Problem(
    'provider-not-available',
    `The provider ${provider} is not available on this server.`,
    provider === 'local'
      ? {
          detail: 'The local provider is off unless the server listens on loopback only.',
          hint: 'An administrator can turn it on with CDE_LOCAL_PROVIDER=on, after reading docs/local-provider.md.',
        }
      : {},
  );
}
