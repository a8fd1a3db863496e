import type { EffectiveIdlePolicy, IdleChoices } from '@cde/api/activity.ts';
import type { CleanupPolicy } from '@cde/api/cleanup.ts';
import type { TemplateFile } from '@cde/api/template-file.ts';
import { eq, sql } from 'drizzle-orm';
import type { Queryable } from '../database/pool.ts';
import { templateVersions } from '../database/schema.ts';
import { parseDuration } from '../providers/quantity.ts';
import type { IdlePolicy } from './policy.ts';

export interface ShutdownScript {
  script: string;
  timeoutMs: number;
}

/** What a template version says about stops. Versions never change, so it is read once. */
export interface StopSection {
  idle: TemplateFile['idle'];
  shutdown: ShutdownScript | null;
}

const maxCached = 1_000;

export function makeStopSections(db: Queryable): (versionId: string) => Promise<StopSection> {
  const cached = new Map<string, Promise<StopSection>>();

  async function read(versionId: string): Promise<StopSection> {
    const [row] = await db
      .select({
        idle: sql<TemplateFile['idle'] | null>`${templateVersions.content} -> 'idle'`,
        shutdown: sql<{ script: string; timeout: string } | null>`${templateVersions.content} -> 'shutdown'`,
      })
      .from(templateVersions)
      .where(eq(templateVersions.id, versionId));
    const shutdown = row?.shutdown;
    return {
      idle: row?.idle ?? undefined,
      shutdown: shutdown
        ? { script: shutdown.script, timeoutMs: parseDuration(shutdown.timeout) ?? 60_000 }
        : null,
    };
  }

  return (versionId) => {
    const known = cached.get(versionId);
    if (known) return known;
    if (cached.size >= maxCached) cached.delete(cached.keys().next().value!);
    const section = read(versionId);
    cached.set(versionId, section);
    section.catch(() => cached.delete(versionId));
    return section;
  };
}

/** Combines what the template says, its owner chose and the installation allows. */
export type ResolvePolicy = (
  idle: TemplateFile['idle'],
  chosen: { choices: IdleChoices; by: string | null },
  bounds: CleanupPolicy,
) => { effective: EffectiveIdlePolicy; policy: IdlePolicy };
