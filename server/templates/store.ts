import { Problem } from '@cde/api/problem.ts';
import type { Template, TemplateVersion } from '@cde/api/templates.ts';
import { and, asc, desc, eq, gt, isNotNull, lt, ne, or, sql } from 'drizzle-orm';
import type { Queryable } from '../database/pool.ts';
import { templates, templateVersions, users, workspaces } from '../database/schema.ts';
import { fromCursor, isUuid, toPage } from '../http/cursor.ts';

/** What lists and replies need of a version; not its files. */
const versionColumns = {
  id: templateVersions.id,
  templateId: templateVersions.templateId,
  number: templateVersions.number,
  message: templateVersions.message,
  content: templateVersions.content,
  createdAt: templateVersions.createdAt,
  createdBy: users.username,
};
interface VersionRow extends Omit<typeof templateVersions.$inferSelect, 'files' | 'filesHash' | 'createdBy'> {
  createdBy: string | null;
}

function toVersion(row: VersionRow, activeVersionId: string | null): TemplateVersion {
  return {
    id: row.id,
    templateId: row.templateId,
    number: row.number,
    message: row.message,
    provider: row.content.provider,
    parameters: row.content.parameters,
    active: row.id === activeVersionId,
    createdAt: row.createdAt.toISOString(),
    createdBy: row.createdBy,
  };
}

interface TemplateRow {
  template: typeof templates.$inferSelect;
  version: VersionRow;
  workspaces: number;
}

function toTemplate({ template, version, workspaces }: TemplateRow): Template {
  return {
    id: template.id,
    name: template.name,
    title: version.content.title ?? template.name,
    description: version.content.description ?? '',
    icon: version.content.icon ?? '',
    provider: version.content.provider,
    activeVersion: toVersion(version, template.activeVersionId),
    workspaces,
    createdAt: template.createdAt.toISOString(),
    updatedAt: template.updatedAt.toISOString(),
  };
}

/** A template without an active version was deleted; its row stays for the workspaces that were made from it. */
function selectTemplates(db: Queryable) {
  return db
    .select({
      template: templates,
      version: versionColumns,
      workspaces: sql<number>`(SELECT count(*)::int FROM ${workspaces} WHERE ${workspaces.templateId} = ${templates.id} AND ${workspaces.status} <> 'deleted')`,
    })
    .from(templates)
    .innerJoin(templateVersions, eq(templateVersions.id, templates.activeVersionId))
    .leftJoin(users, eq(users.id, templateVersions.createdBy));
}

/** By name or id. */
function refersTo(ref: string) {
  return isUuid(ref) ? or(eq(templates.id, ref), eq(templates.name, ref)) : eq(templates.name, ref);
}

function templateNotFound(ref: string): Problem {
  return new Problem('template-not-found', `There is no template ${ref}.`, {
    actions: [{ kind: 'list-templates' }],
  });
}

/** @throws template-not-found */
export async function getTemplate(db: Queryable, ref: string): Promise<Template> {
  const [row] = await selectTemplates(db).where(refersTo(ref));
  if (!row) throw templateNotFound(ref);
  return toTemplate(row);
}

/** A page of the templates, by name. */
export async function listTemplates(
  db: Queryable,
  page: { limit: number; after?: string | undefined },
): Promise<{ items: Template[]; next: string | null }> {
  const rows = await selectTemplates(db)
    .where(page.after === undefined ? undefined : gt(templates.name, fromCursor(page.after, Boolean)))
    .orderBy(asc(templates.name))
    .limit(page.limit + 1);
  return toPage(rows, page.limit, (row) => row.template.name, toTemplate);
}

/**
 * The template's row, locked until the transaction ends, so that what is decided on it still holds.
 * @throws template-not-found
 */
export async function lockTemplate(
  tx: Queryable,
  ref: string,
): Promise<typeof templates.$inferSelect & { activeVersionId: string }> {
  const [row] = await tx
    .select()
    .from(templates)
    .where(and(refersTo(ref), isNotNull(templates.activeVersionId)))
    .for('update');
  if (!row?.activeVersionId) throw templateNotFound(ref);
  return { ...row, activeVersionId: row.activeVersionId };
}

/** A page of a template's versions, newest first. @throws template-not-found */
export async function listVersions(
  db: Queryable,
  ref: string,
  page: { limit: number; after?: string | undefined },
): Promise<{ items: TemplateVersion[]; next: string | null }> {
  const [template] = await db
    .select()
    .from(templates)
    .where(and(refersTo(ref), isNotNull(templates.activeVersionId)));
  if (!template) throw templateNotFound(ref);
  const before =
    page.after === undefined ? undefined : Number(fromCursor(page.after, (key) => /^\d{1,9}$/.test(key)));
  const rows = await db
    .select(versionColumns)
    .from(templateVersions)
    .leftJoin(users, eq(users.id, templateVersions.createdBy))
    .where(
      and(
        eq(templateVersions.templateId, template.id),
        before === undefined ? undefined : lt(templateVersions.number, before),
      ),
    )
    .orderBy(desc(templateVersions.number))
    .limit(page.limit + 1);
  return toPage(
    rows,
    page.limit,
    (row) => String(row.number),
    (row) => toVersion(row, template.activeVersionId),
  );
}

/** One version whole. @throws template-not-found, template-version-not-found */
export async function getVersion(
  db: Queryable,
  ref: string,
  number: number,
): Promise<typeof templateVersions.$inferSelect> {
  const [row] = await db
    .select({ template: templates.name, version: templateVersions })
    .from(templates)
    .leftJoin(
      templateVersions,
      and(
        eq(templateVersions.templateId, templates.id),
        // Out of PostgreSQL's range, it is none of ours either.
        eq(templateVersions.number, Math.max(0, Math.min(number, 2 ** 31 - 1))),
      ),
    )
    .where(and(refersTo(ref), isNotNull(templates.activeVersionId)));
  if (!row) throw templateNotFound(ref);
  if (!row.version) {
    throw new Problem(
      'template-version-not-found',
      `The template ${row.template} has no version ${number}.`,
      {
        actions: [{ kind: 'show-template', template: row.template }],
      },
    );
  }
  return row.version;
}

/** The newest version's number and content hash; undefined when there is none. */
export async function newestVersion(
  tx: Queryable,
  templateId: string,
): Promise<{ id: string; number: number; filesHash: Buffer } | undefined> {
  const [row] = await tx
    .select({
      id: templateVersions.id,
      number: templateVersions.number,
      filesHash: templateVersions.filesHash,
    })
    .from(templateVersions)
    .where(eq(templateVersions.templateId, templateId))
    .orderBy(desc(templateVersions.number))
    .limit(1);
  return row;
}

/** `owner/name` of the workspaces made from a template that are not deleted, at most `limit`. */
export async function workspacesOf(tx: Queryable, templateId: string, limit: number): Promise<string[]> {
  const rows = await tx
    .select({ owner: users.username, name: workspaces.name })
    .from(workspaces)
    .innerJoin(users, eq(users.id, workspaces.ownerId))
    .where(and(eq(workspaces.templateId, templateId), ne(workspaces.status, 'deleted')))
    .orderBy(asc(users.username), asc(workspaces.name))
    .limit(limit);
  return rows.map(({ owner, name }) => `${owner}/${name}`);
}

/** Removes the template's rows, or, where deleted workspaces still point to them, makes it a deleted one. */
export async function removeTemplate(tx: Queryable, templateId: string, now: Date): Promise<void> {
  const [pointing] = await tx
    .select({ id: workspaces.id })
    .from(workspaces)
    .where(eq(workspaces.templateId, templateId))
    .limit(1);
  await tx
    .update(templates)
    .set({ activeVersionId: null, updatedAt: now })
    .where(eq(templates.id, templateId));
  if (!pointing) await tx.delete(templates).where(eq(templates.id, templateId));
}
