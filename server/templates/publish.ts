import { createHash } from 'node:crypto';
import { Problem } from '@cde/api/problem.ts';
import type { Template } from '@cde/api/templates.ts';
import { and, eq } from 'drizzle-orm';
import { v7 } from 'uuid';
import type { Database, Queryable } from '../database/pool.ts';
import { templates, templateVersions } from '../database/schema.ts';
import type { Caller } from '../http/actor.ts';
import { type SystemCaller, writeAudit } from '../identity/audit/audit.ts';
import { templateFileName } from './language/files.ts';
import { parseTemplate } from './parse.ts';
import {
  getTemplate,
  getVersion,
  lockTemplate,
  newestVersion,
  removeTemplate,
  workspacesOf,
} from './store.ts';

interface Deps {
  database: Database;
  now: () => Date;
}

/** The same for the same files, whatever their order. */
function hashFiles(files: Record<string, string>): Buffer {
  const sorted = Object.entries(files).sort(([a], [b]) => (a < b ? -1 : 1));
  return createHash('sha256').update(JSON.stringify(sorted)).digest();
}

/**
 * Publishes a folder as the next version of the template that it names, which need not exist yet. A
 * version never changes afterwards; publishing the newest one's content again returns it as it is. The
 * first version is active; a later one becomes so when `activate` says so.
 * @throws template-invalid, with an issue for each fault
 */
export async function publishTemplate(
  { database, now }: Deps,
  caller: Caller | SystemCaller,
  {
    files,
    message = '',
    activate = true,
  }: { files: Record<string, string>; message?: string; activate?: boolean },
): Promise<Template> {
  const { template: content, faults } = parseTemplate(files);
  if (!content) {
    throw new Problem(
      'template-invalid',
      faults.length === 1 ? 'The template has a fault.' : `The template has ${faults.length} faults.`,
      {
        detail: faults
          .slice(0, 5)
          .map(({ file, line, column, message }) => `${file}:${line}:${column}: ${message}`)
          .join('\n'),
        hint: 'Correct it and publish again. You can check a template without publishing it.',
        actions: [{ kind: 'validate-template' }],
        issues: faults.map(({ file, line, column, path, message, hint }) => ({
          path: path === '' ? file : file === templateFileName ? path : `${file}: ${path}`,
          message: hint === undefined ? message : `${message} (${hint})`,
          line,
          column,
        })),
      },
    );
  }
  return database.db.transaction(async (tx) => {
    const template = await lockOrCreate(tx, content.name, now());
    const newest = await newestVersion(tx, template.id);
    const filesHash = hashFiles(files);
    let { activeVersionId } = template;
    let versionId = newest?.id;
    if (!newest?.filesHash.equals(filesHash)) {
      versionId = v7();
      const number = (newest?.number ?? 0) + 1;
      await tx.insert(templateVersions).values({
        id: versionId,
        templateId: template.id,
        number,
        message,
        files,
        filesHash,
        content,
        createdBy: caller.actor.kind === 'user' ? caller.actor.userId : null,
        createdAt: now(),
      });
      await writeAudit(tx, caller, {
        action: 'template.publish',
        targetType: 'template',
        targetId: template.id,
        targetName: content.name,
        after: { version: number, message, files: Object.keys(files), filesHash: filesHash.toString('hex') },
      });
    }
    if ((activate || activeVersionId === null) && versionId !== activeVersionId) {
      await setActive(tx, caller, template, versionId!);
      activeVersionId = versionId!;
    }
    if (versionId !== newest?.id || activeVersionId !== template.activeVersionId) {
      await tx.update(templates).set({ updatedAt: now() }).where(eq(templates.id, template.id));
    }
    return getTemplate(tx, template.id);
  });
}

/** The template's row, locked: who publishes at the same time waits here, and takes the next number. */
async function lockOrCreate(tx: Queryable, name: string, now: Date) {
  for (;;) {
    await tx
      .insert(templates)
      .values({ id: v7(), name, createdAt: now, updatedAt: now })
      .onConflictDoNothing();
    const [row] = await tx.select().from(templates).where(eq(templates.name, name)).for('update');
    // None: deleted by another between the two statements.
    if (row) return row;
  }
}

async function setActive(
  tx: Queryable,
  caller: Caller | SystemCaller,
  template: { id: string; name: string; activeVersionId: string | null },
  versionId: string,
): Promise<void> {
  const numberOf = async (id: string | null) => {
    if (id === null) return null;
    const [row] = await tx
      .select({ number: templateVersions.number })
      .from(templateVersions)
      .where(and(eq(templateVersions.id, id), eq(templateVersions.templateId, template.id)));
    return row?.number ?? null;
  };
  const [before, after] = [await numberOf(template.activeVersionId), await numberOf(versionId)];
  await tx.update(templates).set({ activeVersionId: versionId }).where(eq(templates.id, template.id));
  await writeAudit(tx, caller, {
    action: 'template.activate',
    targetType: 'template',
    targetId: template.id,
    targetName: template.name,
    before: { activeVersion: before },
    after: { activeVersion: after },
  });
}

/** Makes a version the active one, an older one too. @throws template-not-found, template-version-not-found */
export async function activateVersion(
  { database, now }: Deps,
  caller: Caller,
  ref: string,
  number: number,
): Promise<Template> {
  return database.db.transaction(async (tx) => {
    const template = await lockTemplate(tx, ref);
    const version = await getVersion(tx, template.id, number);
    if (version.id !== template.activeVersionId) {
      await setActive(tx, caller, template, version.id);
      await tx.update(templates).set({ updatedAt: now() }).where(eq(templates.id, template.id));
    }
    return getTemplate(tx, template.id);
  });
}

const shownWorkspaces = 10;

/** Deletes a template with its versions. @throws template-not-found, template-in-use */
export async function deleteTemplate({ database, now }: Deps, caller: Caller, ref: string): Promise<void> {
  await database.db.transaction(async (tx) => {
    // The lock holds back new workspaces too: their foreign key wants the row.
    const template = await lockTemplate(tx, ref);
    const using = await workspacesOf(tx, template.id, shownWorkspaces + 1);
    if (using.length > 0) {
      const more = using.length > shownWorkspaces ? ', and others' : '';
      throw new Problem('template-in-use', `The template ${template.name} is in use.`, {
        detail: `Made from it: ${using.slice(0, shownWorkspaces).join(', ')}${more}.`,
        hint: 'Delete these workspaces first.',
      });
    }
    const versions = await newestVersion(tx, template.id);
    await removeTemplate(tx, template.id, now());
    await writeAudit(tx, caller, {
      action: 'template.delete',
      targetType: 'template',
      targetId: template.id,
      targetName: template.name,
      before: { newestVersion: versions?.number ?? null },
    });
  });
}
